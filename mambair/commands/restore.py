"""``mambair restore`` and the inference scripts: arguments first, torch after."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mambair.commands.arguments import import_own_code, located_weights
from mambair.commands.restore_arguments import AUTO, TASKS, complete, restore_parser
from mambair.system.console import note, printable, say
from mambair.system.exit_codes import DONE, SOME_FAILED, ends_in_order
from mambair.weights.packaged import BEST, better_weights, default_weights

if TYPE_CHECKING:
    from mambair.folders.finish import Finish
    from mambair.folders.manifest import Manifest
    from mambair.folders.plan import Plan
    from mambair.folders.progress import Report
    from mambair.folders.resume import Ledger
    from mambair.inference.restorer import Restorer


class Part(NamedTuple):
    """Images that go through one network."""

    weights: str  # a file or a name; nothing is fetched yet
    plan: Plan
    better: str | None = None  # the name of a better network


@ends_in_order("what is finished stays; the same command goes on with the rest")
def main(arguments: Sequence[str] | None = None, *, task: str | None = None) -> int:
    """Restore an image, or all images under a folder.

    Args:
        arguments: default: the command line's.
        task: a key of ``TASKS``, from a script that does one; None takes it from ``--task``.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = restore_parser(task)
    options = parser.parse_args(arguments)
    complete(parser, options)
    weights, better = (None, None) if options.task == AUTO else _weights(parser, options)
    import_own_code(parser, options)
    return _run(parser, options, weights, better)


def _weights(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, str | None]:
    """The file or name that --weights gives, or the packaged file and a better name; nothing is fetched yet."""
    degree = _degree(options)
    better = better_weights(options.task, degree)
    if options.weights == BEST:
        if better is None:
            parser.error(f"--weights {BEST}: no published network is known for this task and degree; name a file")
        return better, None
    if options.weights:
        return options.weights, None
    try:
        path = default_weights(options.task, degree)
    except (ValueError, OSError) as error:
        parser.error(str(error) + (f", or a published network: --weights {better}" if better else ""))
    return str(path), better


def _with_state(name: str) -> str:
    """The argument that chooses published weights, and what it would cost."""
    from mambair.weights.fetch import FetchError, cached, resolve, size_in_words

    remote = resolve(name)
    try:
        is_there = cached(remote) is not None
    except FetchError:  # a cache that cannot be used is an error only for who asks for it
        is_there = False
    return f"--weights {name} ({'in the cache' if is_there else f'fetched once, {size_in_words(remote)}'})"


def _degree(options: argparse.Namespace) -> float:
    """What chooses among the networks for the task."""
    task = TASKS[options.task]
    if task.degree == "scale" and options.size is not None and options.size.factor is not None:
        return options.size.factor
    asked = getattr(options, task.degree) if task.degree else None
    return task.default if asked is None else asked


def _expected_scale(options: argparse.Namespace) -> int:
    task = TASKS[options.task]
    return task.default if task.degree == "scale" else 1


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, named: str | None, better: str | None) -> int:
    # Pillow here, and torch below, which takes seconds to import: --help and wrong usage answer at once
    from mambair.folders.output_check import checked_output
    from mambair.system.process_memory import bound_kernel_caches

    bound_kernel_caches()
    with contextlib.ExitStack() as stack:
        try:
            plan = _plan(options, _expected_scale(options))
            manifest = _manifest(options, plan)
            notes = stack.enter_context(checked_output(plan, options.manifest))
            parts = [Part(named, plan, better)] if named is not None else _by_look(options, plan)
        except (ValueError, OSError) as error:  # a wrong plan
            parser.error(printable(error))
        code = DONE
        for part in parts:
            code = max(code, _run_part(parser, options, part, manifest, notes))
            notes = []
    if options.open and not options.dry_run and code == DONE:
        _open(options, plan)
    return code


def _run_part(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    part: Part,
    manifest: Manifest | None,
    notes: list[str],
) -> int:
    from mambair.folders.finish import Finish

    plan, finish = part.plan, Finish(options.size, options.strength, options.compare)
    try:
        weights = located_weights(parser, part.weights, offline=options.offline, quiet=options.quiet)
        if part.better and not options.quiet:
            note(f"network: {weights.name}, which comes with mambair; a better one: {_with_state(part.better)}")
        restorer = _restorer(parser, options, weights)
        if options.size is None and restorer.scale != _expected_scale(options):
            plan = _plan(options, restorer.scale)  # names of results may say the scale of the weights
        ledger = _ledger(options, finish, weights, restorer, plan, manifest)
    except (ValueError, OSError) as error:  # a wrong device or tile; weights that cannot be read
        parser.error(printable(error))
    resampled = _resampling(options, restorer.scale)
    for line in [*plan.notes, *notes, *resampled]:
        note(line)
    if options.dry_run:
        return _show(plan, ledger, options.skip_existing)
    report = _restore(options, finish, restorer, plan, ledger)
    say(f"{report.summary()}: {printable(_where(plan))}")
    if report.interrupted:
        raise KeyboardInterrupt
    return DONE if report.complete else SOME_FAILED


def _where(plan: Plan) -> Path:
    """What the results are found by: the one file, or the folder."""
    return plan.jobs[0].target if plan.names_a_file else plan.folder


def _resampling(options: argparse.Namespace, scale: int) -> list[str]:
    """A note on results that have another size than the network's; after a look at the image its line says so."""
    if options.size is None or options.size.factor == scale or options.task == AUTO or options.quiet:
        return []
    return [f"the network makes x{scale}; {options.size} is resampled from that (bicubic, antialiased)"]


def _restore(
    options: argparse.Namespace, finish: Finish, restorer: Restorer, plan: Plan, ledger: Ledger | None
) -> Report:
    from mambair.folders.pipeline import restore_files
    from mambair.system.process_memory import keep_freed_memory

    keep_freed_memory()
    return restore_files(
        restorer,
        plan,
        finish=finish,
        skip_existing=options.skip_existing,
        quality=options.quality,
        max_pixels=_max_pixels(options),
        allow_truncated=options.allow_truncated,
        ledger=ledger,
        quiet=options.quiet,
    )


def _max_pixels(options: argparse.Namespace) -> int:
    from mambair.images.files import MAX_PIXELS

    return MAX_PIXELS if options.max_pixels is None else options.max_pixels or sys.maxsize


def _by_look(options: argparse.Namespace, plan: Plan) -> list[Part]:
    """The images by the network that a look at each of them chooses; a line says what was seen."""
    from mambair.commands.restore_look import Choice, choose

    groups: dict[str, list[Choice]] = {}
    for job in plan.jobs:
        limits = {"max_pixels": _max_pixels(options), "allow_truncated": options.allow_truncated}
        choice = choose(job, _degree(options), **limits)
        groups.setdefault(choice.weights, []).append(choice)
        if not options.quiet:
            note(choice.line(options.size))
    parts = [Part(weights, replace(plan, jobs=[each.job for each in group])) for weights, group in groups.items()]
    first, *others = parts
    empty = {"notes": [], "unreadable": []}  # said once
    return [first, *(part._replace(plan=replace(part.plan, **empty)) for part in others)]


def _restorer(parser: argparse.ArgumentParser, options: argparse.Namespace, weights: Path) -> Restorer:
    import torch

    from mambair.inference.restorer import Restorer

    restorer = Restorer.from_checkpoint(
        weights,
        device=options.device,
        tile=options.tile,
        overlap=options.overlap,
        batch=options.batch,
        dtype=getattr(torch, options.dtype),
        self_ensemble=options.self_ensemble,
        seed=options.seed,
    )
    if TASKS[options.task].degree != "scale" and restorer.scale != 1:
        parser.error(f"scale 1 is asked for, but {weights} enlarges {restorer.scale} times")
    return restorer


def _plan(options: argparse.Namespace, scale: int) -> Plan:
    """What is done with results of that scale, unless a size is asked for."""
    from mambair.folders.before_after import comparisons_of
    from mambair.folders.plan import plan_beside, plan_jobs

    marker = TASKS[options.task].marker
    if options.size is not None and "{scale}" in marker:
        marker = options.size.marker
    marker = marker.format(scale=scale)
    if options.output is None:
        is_free = options.overwrite or options.skip_existing
        plan = plan_beside(
            options.input,
            options.suffix or marker,
            format=options.format,
            quality=options.quality,
            may_exist=is_free,
        )
    else:
        plan = plan_jobs(
            options.input,
            options.output,
            format=options.format,
            quality=options.quality,
            suffix=options.suffix,
            same_folder_suffix=marker,
            include=options.include,
            exclude=options.exclude,
        )
    if options.compare:
        comparisons_of(plan)  # fails before anything is computed
    return plan


def _manifest(options: argparse.Namespace, plan: Plan) -> Manifest | None:
    """The one that is named, or that of the output folder; none for an output that names one file."""
    from mambair.folders.manifest import NAME, Manifest

    if options.manifest is None and plan.names_a_file:
        if options.manifest_details:
            raise ValueError("manifest-details: no manifest is written for a single result; --manifest names one")
        return None
    return Manifest(plan.folder / NAME if options.manifest is None else options.manifest)


def _ledger(
    options: argparse.Namespace,
    finish: Finish,
    weights: Path,
    restorer: Restorer,
    plan: Plan,
    manifest: Manifest | None,
) -> Ledger | None:
    """The manifest, with what each of its lines says of this run."""
    if manifest is None:
        return None
    import mambair
    from mambair.folders.resume import Ledger
    from mambair.ops.backends import explain

    settings = {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "tile_asked": restorer.asked.tile,
        "overlap_asked": restorer.asked.overlap,
        "dtype": options.dtype,
        "self_ensemble": options.self_ensemble,
        "seed": options.seed,
        "quality": options.quality,
        "version": mambair.__version__,
        **finish.settings(),
    }
    details = options.manifest_details
    weights_file = str(weights.absolute()) if details else weights.name
    facts = {"weights_file": weights_file, "device": str(restorer.device), "backend": explain(restorer.device.type)[0]}
    overwrite = options.overwrite
    return Ledger(plan.folder, settings, facts=facts, manifest=manifest, overwrite=overwrite, details=details)


def _show(plan: Plan, ledger: Ledger | None, skip_existing: bool) -> int:
    from mambair.folders.resume import State
    from mambair.images.files import ImageFileError, read_encoded

    for job in plan.jobs:
        state = State.OPEN if ledger is None else ledger.state(job)
        if ledger is not None and state is State.UNSURE:
            try:
                state = ledger.state(job, read_encoded(job.source).sha256())
            except ImageFileError as error:
                note(f"would fail: {printable(error)}")
                continue
        is_done = state is State.DONE or (skip_existing and job.target.exists())
        say(f"{printable(job.source)}: {'skip' if is_done else 'write'} {printable(job.target)}")
    for folder, reason in plan.unreadable:
        note(f"would fail: {printable(folder)}: {reason}")
    return DONE


def _open(options: argparse.Namespace, plan: Plan) -> None:
    """Show the result: the page that compares, the image, or the folder of several."""
    from mambair.folders.before_after import comparisons_of
    from mambair.system.show_file import show_file

    path = plan.folder
    if len(plan.jobs) == 1:
        (job,) = plan.jobs
        page = comparisons_of(plan)[job]
        path = page.with_name(page.name + ".html") if options.compare else job.target
    reason = show_file(path)
    if reason is not None:
        note(f"--open: {printable(path)} is not shown: {reason}")
