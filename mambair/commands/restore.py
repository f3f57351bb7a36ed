"""``mambair restore`` and the inference scripts: arguments first, torch after."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mambair.commands.arguments import (
    add_import,
    add_network_group,
    add_quiet,
    command_parser,
    import_own_code,
    located_weights,
    path_name,
    pixel_count,
)
from mambair.system.console import note, printable, say
from mambair.system.exit_codes import DONE, SOME_FAILED, ends_in_order
from mambair.system.suggestions import did_you_mean
from mambair.weights.packaged import BEST, better_weights, default_weights

if TYPE_CHECKING:
    from mambair.folders.manifest import Manifest
    from mambair.folders.plan import Plan
    from mambair.folders.resume import Ledger
    from mambair.inference.restorer import Restorer

EXAMPLES = """
mambair restore -i photos -o enlarged
mambair restore --task denoise -i noisy -o clean --sigma 25
mambair restore -i photo.jpg -o enlarged --weights my_x2.safetensors --tile 192 --dtype bf16
"""
SCRIPT_EXAMPLES = """
python inference/{script} -i photos -o results
python inference/{script} -i photo.png -o results --weights mine.safetensors --tile 192
"""


class Task(NamedTuple):
    """What is done to an image, and how the packaged weights for it are told apart."""

    summary: str
    marker: str  # what names of results end in where they lie beside their inputs
    degree: str | None  # the argument that chooses among the packaged weights
    default: int = 0


TASKS: dict[str, Task] = {
    "sr": Task("enlarge images", "_x{scale}", "scale", 4),
    "denoise": Task("take Gaussian noise out of images", "_denoised", "sigma", 25),
    "jpeg": Task("take the traces of JPEG compression out of images", "_clean", None),
    "real_denoise": Task("take the noise of cameras out of images", "_denoised", None),
}
DEGREES = {
    "scale": "factor of enlargement (default: that of --weights; without --weights 4)",
    "sigma": "noise level in grey levels of 255 (default 25; without --weights)",
}


@ends_in_order("what is finished stays; the same command goes on with the rest")
def main(arguments: Sequence[str] | None = None, *, task: str | None = None) -> int:
    """Restore an image, or all images under a folder.

    Args:
        arguments: default: the command line's.
        task: a key of ``TASKS``, from a script that does one; None takes it from ``--task``.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = _parser(task)
    options = parser.parse_args(arguments)
    weights = _weights(parser, options, TASKS[options.task])
    import_own_code(parser, options)
    return _run(parser, options, weights)


def _parser(task: str | None) -> argparse.ArgumentParser:
    what = "enlarge or clean images" if task is None else TASKS[task].summary
    parser = command_parser(
        "mambair restore" if task is None else None,
        f"{what.capitalize()}: one, or all under a folder, whose tree is kept.",
        EXAMPLES if task is None else SCRIPT_EXAMPLES.format(script=Path(sys.argv[0]).name),
    )
    add = parser.add_argument
    add(
        "-i",
        "--input",
        required=True,
        type=path_name,
        metavar="PATH",
        help="an image, or a folder (walked recursively)",
    )
    add("-o", "--output", required=True, type=path_name, metavar="PATH", help="folder for the results, or a file name")
    if task is None:
        rows = "; ".join(f"{name}: {each.summary}" for name, each in TASKS.items())
        add("--task", type=_task, choices=TASKS, default="sr", help=f"what the weights are for: {rows} (default sr)")
    else:
        parser.set_defaults(task=task)
    for degree in DEGREES if task is None else filter(None, [TASKS[task].degree]):
        short = ["-s"] if degree == "scale" else []
        add(*short, f"--{degree}", type=int, metavar="N", help=DEGREES[degree])
    add(
        "--weights",
        metavar="FILE_OR_NAME",
        help="a .safetensors or .pth file, or a published network: see 'mambair weights list'; 'best': the best "
        "published one for the task (default: those that come with mambair)",
    )
    add_import(add)
    add_to_network = add_network_group(parser, default_tile="256, or the network's own; 0: never cut")
    add_to_network("--batch", type=int, metavar="N", help="tiles in the network at once (default 4 on CUDA, else 2)")
    add_to_network("--seed", type=int, metavar="N", default=0, help="of MambaIRv2's routing noise (default 0)")
    _add_files(parser.add_argument_group("files"))
    return parser


def _task(text: str) -> str:
    if text not in TASKS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(TASKS)}, got {text!r}{did_you_mean(text, TASKS)}")
    return text


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--include", action="append", metavar="GLOB", default=[], help="only these names, or paths if it has a /")
    add("--exclude", action="append", metavar="GLOB", default=[], help="but not these; both may be repeated")
    add("--format", metavar="EXT", help="format of the results: png, jpg, tif, webp, ... (default png)")
    add("--quality", type=int, metavar="N", help="1 to 100 for jpg (default 95), avif (90) and webp (lossless)")
    add("--suffix", default="", metavar="TEXT", help="append this to the names of the results")
    add("--skip-existing", action="store_true", help="pass over images whose result is there, however it was made")
    add("--overwrite", action="store_true", help="also redo what the manifest says is done, with the same settings")
    add(
        "--manifest",
        type=path_name,
        metavar="FILE",
        help="JSON lines about each file (default: OUTPUT/manifest.jsonl)",
    )
    add(
        "--max-pixels",
        type=pixel_count,
        metavar="N",
        help="refuse images with more: 200M, 1e9, ...; 0: no limit (default 268435456: 16384 x 16384)",
    )
    add("--allow-truncated", action="store_true", help="restore what there is of damaged images; the rest is black")
    add("--dry-run", action="store_true", help="show what would be done, and write no result")
    add_quiet(add)


def _weights(parser: argparse.ArgumentParser, options: argparse.Namespace, task: Task) -> str:
    """The file or name that --weights gives, or the packaged file for the task; nothing is fetched yet."""
    for degree in DEGREES:
        given = getattr(options, degree, None) is not None
        if given and degree != task.degree:
            parser.error(f"--{degree} says nothing about the task {options.task}")
        if given and degree != "scale" and options.weights:
            parser.error(f"--{degree} chooses among the packaged weights and --weights names a file: give one of them")
    asked = getattr(options, task.degree) if task.degree else None
    degree = task.default if asked is None else asked
    better = better_weights(options.task, degree)
    if options.weights == BEST:
        if better is None:
            parser.error(f"--weights {BEST}: no published network is known for this task and degree; name a file")
        return better
    if options.weights:
        return options.weights
    try:
        path = default_weights(options.task, degree)
    except (ValueError, OSError) as error:
        parser.error(str(error) + (f", or a published network: --weights {better}" if better else ""))
    if better is not None and not options.quiet:
        note(f"network: {path.name}, which comes with mambair; a better one: --weights {better}")
    return str(path)


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, named: str) -> int:
    if options.skip_existing and options.overwrite:
        parser.error("--skip-existing and --overwrite contradict each other: give one of them")
    # Pillow here, and torch below, which takes seconds to import: --help and wrong usage answer at once
    from mambair.folders.output_check import checked_output
    from mambair.system.process_memory import bound_kernel_caches

    bound_kernel_caches()
    task = TASKS[options.task]
    scale = (getattr(options, "scale", None) or task.default) if task.degree == "scale" else 1
    with contextlib.ExitStack() as stack:
        try:
            plan = _plan(options, scale)
            manifest = _manifest(options, plan)
            notes = stack.enter_context(checked_output(plan, options.manifest))
            weights = located_weights(parser, named, offline=options.offline)
            restorer = _restorer(parser, options, weights)
            if restorer.scale != scale:  # that of the weights, which names of results may say
                plan = _plan(options, restorer.scale)
            ledger = _ledger(options, weights, restorer, plan, manifest)
        except (ValueError, OSError) as error:  # a wrong plan, device or tile; weights that cannot be read
            parser.error(printable(error))
        for line in [*plan.notes, *notes]:
            note(line)
        return (
            _show(plan, ledger, options.skip_existing) if options.dry_run else _restore(options, restorer, plan, ledger)
        )


def _restore(options: argparse.Namespace, restorer: Restorer, plan: Plan, ledger: Ledger | None) -> int:
    from mambair.folders.pipeline import restore_files
    from mambair.images.files import MAX_PIXELS
    from mambair.system.process_memory import keep_freed_memory

    keep_freed_memory()
    report = restore_files(
        restorer,
        plan,
        skip_existing=options.skip_existing,
        quality=options.quality,
        max_pixels=MAX_PIXELS if options.max_pixels is None else options.max_pixels or sys.maxsize,
        allow_truncated=options.allow_truncated,
        ledger=ledger,
        quiet=options.quiet,
    )
    say(f"{report.summary()}: {printable(options.output)}")
    if report.interrupted:
        raise KeyboardInterrupt
    return DONE if report.complete else SOME_FAILED


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
    expected = getattr(options, "scale", None) if options.task == "sr" else 1
    if expected is not None and restorer.scale != expected:
        parser.error(f"scale {expected} is asked for, but {weights} enlarges {restorer.scale} times")
    return restorer


def _plan(options: argparse.Namespace, scale: int) -> Plan:
    from mambair.folders.plan import plan_jobs

    return plan_jobs(
        options.input,
        options.output,
        format=options.format,
        quality=options.quality,
        suffix=options.suffix,
        same_folder_suffix=TASKS[options.task].marker.format(scale=scale),
        include=options.include,
        exclude=options.exclude,
    )


def _manifest(options: argparse.Namespace, plan: Plan) -> Manifest | None:
    """The one that is named, or that of the output folder; none for an output that names one file."""
    from mambair.folders.manifest import NAME, Manifest

    if options.manifest is None and plan.names_a_file:
        return None
    return Manifest(plan.folder / NAME if options.manifest is None else options.manifest)


def _ledger(
    options: argparse.Namespace, weights: Path, restorer: Restorer, plan: Plan, manifest: Manifest | None
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
    }
    facts = {"weights_file": str(weights), "device": str(restorer.device), "backend": explain(restorer.device.type)[0]}
    return Ledger(plan.folder, settings, facts=facts, manifest=manifest, overwrite=options.overwrite)


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
