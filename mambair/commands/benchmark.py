"""``mambair benchmark``: the papers' tables, measured on their test sets."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.arguments import add_import, add_network_group, add_quiet, command_parser, import_own_code
from mambair.evaluation.suites import SUITES, Suite
from mambair.system.exit_codes import DONE, SOME_FAILED, ends_in_order

if TYPE_CHECKING:
    from mambair.evaluation.candidates import Candidate
    from mambair.evaluation.suite_run import Plan, Results

EXAMPLES = """
mambair benchmark --suite light-sr --data testsets --weights mine.safetensors
mambair benchmark --suite light-sr --data testsets --weights small=a.pth large=b.pth --sets Set5 Set14
mambair benchmark --suite color-dn --data testsets --weights mine.pth --levels 15 25 50
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
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # torch, which takes seconds to import, comes in only here: --help and wrong usage answer at once
    from mambair.evaluation.suite_run import run
    from mambair.evaluation.summary import Summary
    from mambair.system.process_memory import keep_freed_memory

    keep_freed_memory()
    try:
        plan = _plan(options, suite)
        Summary(_nothing(plan), options.reference)  # a wrong --reference is told before hours of work
    except (ValueError, OSError) as error:
        parser.error(str(error))
    results = run(plan, progress=not options.quiet)
    _conclude(results, options)
    return DONE if results.is_whole else SOME_FAILED


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
    add("--suite", required=True, choices=SUITES, help="which table")
    add("--data", required=True, type=Path, metavar="ROOT", help="folder with the test sets under their usual names")
    add(
        "--weights", nargs="+", default=[], metavar="[NAME=]FILE", help="one or more; none: the input alone is measured"
    )
    add(
        "--results",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="images other programs restored: FOLDER/SET/IMAGE.png",
    )
    add("--sets", nargs="+", metavar="SET", help="some of the suite's sets (default: all)")
    add("--levels", nargs="+", type=int, metavar="N", help="scales, sigmas or qualities (SR: those of the weights)")
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
    unknown = [name for name in options.sets or () if name.lower() not in by_name]
    if unknown:
        parser.error(f"--sets {' '.join(unknown)}: {suite.name} has {', '.join(suite.sets)}")
    options.sets = [by_name[name.lower()] for name in options.sets or suite.sets]
    lowest, highest = (2, 8) if suite.task == "sr" else (1, 100)
    wrong = [level for level in options.levels or () if not lowest <= level <= highest]
    if wrong:
        parser.error(f"--levels {wrong[0]}: the {suite.level} must be from {lowest} to {highest}")
    if not options.levels and (suite.task != "sr" or not options.weights):
        printed = ", ".join(map(str, suite.printed_levels))
        parser.error(f"say the {suite.level} to measure at: --levels N (the papers have {printed})")
    if options.crop < 8:
        parser.error(f"--crop {options.crop}: must be at least 8 pixels")
    for text in options.results:
        if "=" not in text:
            parser.error(f"--results {text}: must be NAME=FOLDER")
    options.weights = [_named(text) for text in options.weights]
    for _, path in options.weights:
        if not path.is_file():
            parser.error(f"--weights {path}: there is no such file")


def _named(text: str) -> tuple[str, Path]:
    """NAME=FILE, or FILE, whose name without suffix it then is."""
    if "=" in text and not Path(text).is_file():
        name, _, path = text.partition("=")
        return name, Path(path)
    return Path(text).stem, Path(text)


def _plan(options: argparse.Namespace, suite: Suite) -> Plan:
    import torch

    from mambair.evaluation.candidates import FolderCandidate, InputCandidate, NetworkCandidate, check_names
    from mambair.evaluation.suite_run import Plan

    dtype = getattr(torch, options.dtype)
    networks = [
        NetworkCandidate(
            name,
            path,
            suite,
            tile=options.tile,
            overlap=options.overlap,
            device=options.device,
            dtype=dtype,
            self_ensemble=options.self_ensemble,
        )
        for name, path in options.weights
    ]
    folders = [
        FolderCandidate(name, Path(path), suite) for name, _, path in (t.partition("=") for t in options.results)
    ]
    methods: list[Candidate] = [InputCandidate(suite), *networks, *folders]
    check_names(methods)
    levels = options.levels or sorted({level for network in networks for level in network.levels or ()})
    idle = [network.name for network in networks if network.levels and not set(network.levels) & set(levels)]
    if idle:
        raise ValueError(f"--levels leaves out the {suite.level} of {', '.join(idle)}")
    words = [f"tiles of {options.tile} input pixels" if options.tile else "whole images"]
    words += [options.dtype] * (options.dtype != "float32") + ["self-ensemble"] * options.self_ensemble
    folder = options.output or Path("results", "benchmark", suite.name)
    return Plan(suite, options.data, options.sets, levels, methods, folder, ", ".join(words), options.self_ensemble)


def _nothing(plan: Plan) -> Results:
    from mambair.evaluation.suite_run import Results

    return Results(plan)


def _conclude(results: Results, options: argparse.Namespace) -> None:
    from mambair.evaluation.suite_tables import as_text, write_tables
    from mambair.evaluation.summary import Summary

    folder = results.plan.folder
    summary = Summary(results, options.reference)
    print(as_text(summary), end="")
    files = write_tables(summary, folder)
    if not options.no_html:
        from mambair.evaluation.html_report import write_html

        files.append(write_html(summary, folder, crop=options.crop))
    new = len(results.measurements) - results.reused
    print(f"\n{new} images measured, {results.reused} were there; in {folder}: {', '.join(f.name for f in files)}")
    for reason in [*results.missing.values(), *results.failed]:
        print(f"not measured: {reason}", file=sys.stderr)
