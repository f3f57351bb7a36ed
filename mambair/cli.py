"""The commands that restore images: arguments first, torch after. Exit codes: 0 all done, 1 some failed, 2 usage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.weights import default_weights

if TYPE_CHECKING:
    from mambair.restore_files import Report
    from mambair.restore_plan import Plan

INTERRUPTED = 130  # what shells report for Ctrl-C: 128 + SIGINT


def super_resolve(arguments: Sequence[str] | None = None) -> int:
    """Enlarge an image, or all images under a folder; ``arguments`` default to the command line's.

    Returns:
        The exit code; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = _parser("Enlarge an image, or every image under a folder (its tree is kept).")
    parser.add_argument(
        "-s", "--scale", type=int, help="factor of enlargement (default: that of --weights; without --weights 4)"
    )
    options = parser.parse_args(arguments)
    weights = options.weights or _packaged(parser, "sr", 4 if options.scale is None else options.scale)
    return _run(parser, options, weights, options.scale, marker="_x{scale}")


def denoise(arguments: Sequence[str] | None = None) -> int:
    """Take noise out of an image, or of all images under a folder; ``arguments`` default to the command line's.

    Returns:
        The exit code; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = _parser("Take noise out of an image, or of every image under a folder (its tree is kept).")
    parser.add_argument("--sigma", type=int, help="noise level in grey levels of 255 (default 25; without --weights)")
    options = parser.parse_args(arguments)
    if options.weights and options.sigma is not None:
        parser.error("--sigma chooses among the packaged weights and --weights names a file: give one of them")
    weights = options.weights or _packaged(parser, "denoise", 25 if options.sigma is None else options.sigma)
    return _run(parser, options, weights, 1, marker="_denoised")


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, epilog="Exit code: 0 all done, 1 some failed, 2 usage.")
    add = parser.add_argument
    add("-i", "--input", required=True, type=Path, metavar="PATH", help="an image, or a folder (walked recursively)")
    add("-o", "--output", required=True, type=Path, metavar="PATH", help="folder for the results (made if missing)")
    add("--weights", type=Path, metavar="FILE", help=".safetensors or .pth (default: those that come with mambair)")
    add("--tile", type=int, metavar="N", help="largest side of a tile, input pixels (default 256; 0: never cut)")
    add("--overlap", type=int, metavar="N", help="least overlap of tiles, input pixels (default 32)")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--format", default="png", metavar="EXT", help="format of the results: png, jpg, tif, webp, ... (default png)")
    add("--suffix", default="", metavar="TEXT", help="append this to the names of the results")
    add("--skip-existing", action="store_true", help="pass over images whose result is there already")
    add("--dry-run", action="store_true", help="say what would be written, and do nothing")
    return parser


def _packaged(parser: argparse.ArgumentParser, task: str, degree: int) -> Path:
    try:
        return default_weights(task, degree)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _run(
    parser: argparse.ArgumentParser, options: argparse.Namespace, weights: Path, scale: int | None, marker: str
) -> int:
    for path in (options.input, weights):
        if not path.exists():
            parser.error(f"there is no file or folder {path}")
    # torch, which takes seconds to import, comes in only here: --help and wrong usage answer at once
    from mambair.restore_files import restore_files
    from mambair.restore_plan import plan_jobs
    from mambair.restorer import Restorer

    try:
        restorer = Restorer.from_checkpoint(weights, device=options.device, tile=options.tile, overlap=options.overlap)
        if scale is not None and restorer.scale != scale:
            parser.error(f"scale {scale} is asked for, but {weights} enlarges {restorer.scale} times")
        plan = plan_jobs(
            options.input,
            options.output,
            format=options.format,
            suffix=options.suffix,
            same_folder_suffix=marker.format(scale=restorer.scale),
        )
    except (ValueError, OSError) as error:  # a wrong plan, device or tile; weights that cannot be read or understood
        parser.error(str(error))
    for note in plan.notes:
        print(note, file=sys.stderr)
    if options.dry_run:
        return _show(plan, options.skip_existing)
    return _conclude(restore_files(restorer, plan, skip_existing=options.skip_existing), options.output)


def _show(plan: Plan, skip_existing: bool) -> int:
    from mambair.restore_plan import printable

    for job in plan.jobs:
        verb = "skip" if skip_existing and job.target.exists() else "write"
        print(f"{printable(job.source)}: {verb} {printable(job.target)}")
    return 0


def _conclude(report: Report, output: Path) -> int:
    from mambair.restore_plan import printable

    print(f"{report.summary()}: {printable(output)}")
    if report.interrupted:
        print("what is finished stays; the same command with --skip-existing goes on", file=sys.stderr)
        return INTERRUPTED
    return 0 if report.complete else 1
