"""``mambair benchmark``: the papers' tables, measured on their test sets."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.arguments import (
    add_import,
    add_network_group,
    add_quiet,
    command_parser,
    import_own_code,
    located_weights,
)
from mambair.data_tools.catalogue import suite_name
from mambair.evaluation.suites import SUITES, Suite
from mambair.system.console import log_to_stderr, note, say
from mambair.system.exit_codes import DONE, SOME_FAILED, ends_in_order

if TYPE_CHECKING:
    from mambair.evaluation.results import Run

EXAMPLES = """
mambair benchmark --suite light-sr --data testsets --weights mine.safetensors
mambair benchmark --suite light-sr --data testsets --weights small=a.pth large=b.pth --sets Set5 Set14
mambair benchmark --suite color-dn --data testsets --weights mine.pth --levels 15 25 50
mambair benchmark --suite real --data pictures --sets holiday --weights pixel=a.pth gan=b.pth
"""


@ends_in_order("what is measured stays; the same command goes on with the rest")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write the reports; ``arguments`` default to the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    suite = SUITES[options.suite]
    _check(parser, options, suite)
    import_own_code(parser, options)
    log_to_stderr(logging.WARNING)
    # torch, which takes seconds to import, comes in only here: --help and wrong usage answer at once
    from mambair.evaluation.comparison import check_reference
    from mambair.evaluation.suite_run import run_suite
    from mambair.system.process_memory import bound_kernel_caches, keep_freed_memory

    bound_kernel_caches()
    keep_freed_memory()
    try:
        run, levels = _prepare(options, suite)
        check_reference(run, levels)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    run_suite(run, options.data, options.sets, levels, progress=not options.quiet)
    _conclude(run, options)
    return DONE if run.is_complete else SOME_FAILED


def _parser() -> argparse.ArgumentParser:
    suites = "".join(f"  {suite.name:12} {', '.join(suite.sets)}\n" for suite in SUITES.values())
    parser = command_parser(
        "mambair benchmark",
        "Measure networks on the test sets of a paper's table, by its protocol. The same command, given again, goes on "
        "where an earlier run was stopped.",
        EXAMPLES,
        f"suites:\n{suites}",
    )
    add = parser.add_argument
    add("--suite", required=True, type=suite_name, choices=SUITES, help="which table; sr, dn and car are short names")
    add("--data", required=True, type=Path, metavar="ROOT", help="folder with the test sets under their usual names")
    add(
        "--weights",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="files, or names of published networks",
    )
    add(
        "--results",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="images other programs restored: FOLDER/SET/IMAGE.png",
    )
    add(
        "--sets",
        nargs="+",
        metavar="SET",
        help="some of the suite's sets (default: all); real takes any folder below ROOT",
    )
    add(
        "--levels",
        nargs="+",
        type=int,
        metavar="N",
        help="scales, sigmas or qualities (SR and real: those of the weights)",
    )
    add("--output", type=Path, metavar="FOLDER", help="for tables and images (default: results/benchmark/SUITE)")
    add("--reference", metavar="NAME", help="printed row that unknown networks are compared with")
    add("--crop", type=int, default=96, metavar="N", help="side of the crops in the HTML report (default 96)")
    add("--no-html", action="store_true", help="write no HTML report")
    add_quiet(add)
    add_import(add)
    add_network_group(parser, default_tile="whole images")
    parser.set_defaults(tile=0)
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace, suite: Suite) -> None:
    """Usage faults that need no torch."""
    if not options.data.is_dir():
        parser.error(f"--data {options.data}: there is no such folder")
    by_name = {name.lower(): name for name in suite.sets}
    if not suite.has_ground_truth:  # any folder of photographs will do
        by_name |= {path.name.lower(): path.name for path in options.data.iterdir() if path.is_dir()}
    unknown = [name for name in options.sets or () if name.lower() not in by_name]
    if unknown:
        parser.error(f"--sets {' '.join(unknown)}: {suite.name} has {', '.join(by_name.values())}")
    options.sets = [by_name[name.lower()] for name in options.sets or suite.sets]
    lowest, highest = {"sr": (2, 8), "real": (1, 8)}.get(suite.task, (1, 100))
    wrong = [level for level in options.levels or () if not lowest <= level <= highest]
    if wrong:
        parser.error(f"--levels {wrong[0]}: the {suite.level} must be from {lowest} to {highest}")
    if not options.levels and not (suite.is_scaled and options.weights):
        printed = f" (the papers have {', '.join(map(str, suite.printed_levels))})" if suite.printed_levels else ""
        parser.error(f"say the {suite.level} to measure at: --levels N{printed}")
    if options.crop < 8:
        parser.error(f"--crop {options.crop}: must be at least 8 pixels")
    for text in options.results:
        if "=" not in text:
            parser.error(f"--results {text}: must be NAME=FOLDER")
    located = partial(located_weights, parser, offline=options.offline, quiet=options.quiet)
    options.weights = [(name, located(text)) for name, text in map(_named, options.weights)]


def _named(text: str) -> tuple[str, str]:
    """NAME=FILE, or FILE, whose name without suffix it then is; a published network for FILE, too."""
    if "=" in text and not Path(text).is_file() and "://" not in text.partition("=")[0]:
        name, _, path = text.partition("=")
        return name, path
    return Path(text).stem, text


def _prepare(options: argparse.Namespace, suite: Suite) -> tuple[Run, list[int]]:
    """What is to be measured, and at which levels."""
    import torch

    from mambair.evaluation.candidates import FolderCandidate, InputCandidate, NetworkCandidate, check_names
    from mambair.evaluation.results import Run

    dtype = getattr(torch, options.dtype)
    networks = [
        NetworkCandidate(
            name,
            path,
            tile=options.tile,
            overlap=options.overlap,
            device=options.device,
            dtype=dtype,
            self_ensemble=options.self_ensemble,
        )
        for name, path in options.weights
    ]
    for network in networks:
        network.check_fits(suite)
    levels = options.levels or sorted({level for network in networks for level in network.levels or ()})
    folders = [
        FolderCandidate(name, Path(path), suite) for name, _, path in (t.partition("=") for t in options.results)
    ]
    candidates = [InputCandidate(suite.input_name, is_enlarged=suite.is_scaled), *networks, *folders]
    check_names(candidates)
    idle = [network.name for network in networks if network.levels and not set(network.levels) & set(levels)]
    if idle:
        raise ValueError(f"--levels leaves out the {suite.level} of {', '.join(idle)}")
    words = [f"tiles of {options.tile} input pixels" if options.tile else "whole images"]
    words += [options.dtype] * (options.dtype != "float32") + ["self-ensemble"] * options.self_ensemble
    folder = options.output or Path("results", "benchmark", suite.name)
    run = Run(
        suite.title, candidates, folder, {"networks": ", ".join(words)}, suite, options.self_ensemble, options.reference
    )
    return run, levels


def _conclude(run: Run, options: argparse.Namespace) -> None:
    from mambair.evaluation.tables import as_text, write_tables

    say(as_text(run).rstrip("\n"))
    files = write_tables(run, "results")
    if not options.no_html:
        from mambair.evaluation.html_report import write_html

        files.append(write_html(run, crop=options.crop))
    images = run.images()
    reused = sum(image.is_reused for image in images)
    say(
        f"\n{len(images) - reused} images measured, {reused} were there; in {run.folder}: "
        f"{', '.join(file.name for file in files)}"
    )
    for reason in [*run.missing.values(), *run.failed()]:
        note(f"not measured: {reason}")
