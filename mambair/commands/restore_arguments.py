"""The arguments of ``mambair restore`` and of the inference scripts, and what they say of the results."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NamedTuple

from mambair.commands.arguments import (
    add_import,
    add_network_group,
    add_quiet,
    at_least,
    command_parser,
    path_name,
    pixel_count,
)
from mambair.folders.target_size import TargetSize
from mambair.system.suggestions import did_you_mean

EXAMPLES = """
mambair restore photo.jpg
mambair restore -i photos -o enlarged --longest-side 4000 --format same
mambair restore --task denoise -i noisy -o clean --sigma 25
mambair restore -i photo.jpg -o enlarged --weights my_x2.safetensors --tile 192 --dtype bf16
"""
SCRIPT_EXAMPLES = """
python inference/{script} -i photos -o results
python inference/{script} -i photo.png -o results --weights mine.safetensors --tile 192
"""
AUTO = "auto"


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
    "photo": Task("enlarge and clean photographs as cameras and the web give them", "_x{scale}", "scale", 2),
    AUTO: Task("choose by a quick look at each image, and enlarge it", "_x{scale}", "scale", 2),
}
DEGREES = {
    "scale": "factor of the results, 2 or 1.5: made by the nearest network and resampled, bicubic with antialiasing "
    "(default: that of --weights; without --weights 4; for a PHOTO and the tasks photo and auto 2)",
    "sigma": "noise level in grey levels of 255 (default 25; without --weights)",
}


def restore_parser(task: str | None) -> argparse.ArgumentParser:
    """The parser; for a script that does one task, without ``--task`` and the arguments of others."""
    what = "enlarge or clean images" if task is None else TASKS[task].summary
    parser = command_parser(
        "mambair restore" if task is None else None,
        f"{what.capitalize()}: one, or all under a folder, whose tree is kept.",
        EXAMPLES if task is None else SCRIPT_EXAMPLES.format(script=Path(sys.argv[0]).name),
    )
    add = parser.add_argument
    if task is None:
        add(
            "photo",
            nargs="*",
            type=path_name,
            metavar="PHOTO",
            help="one image; without -o its result, x2 and of the same format, is written beside it as PHOTO_x2",
        )
    add("-i", "--input", type=path_name, metavar="PATH", help="an image, or a folder (walked recursively)")
    add("-o", "--output", type=path_name, metavar="PATH", help="folder for the results, or a file name")
    if task is None:
        rows = "; ".join(f"{name}: {each.summary}" for name, each in TASKS.items())
        add("--task", type=_task, choices=TASKS, help=f"what is done: {rows} (default sr; for a PHOTO auto)")
    else:
        parser.set_defaults(task=task, photo=[])
    for degree in DEGREES if task is None else filter(None, [TASKS[task].degree]):
        short, type = (["-s"], _factor) if degree == "scale" else ([], int)
        add(*short, f"--{degree}", type=type, metavar="N", help=DEGREES[degree])
    add(
        "--weights",
        type=_weights,
        metavar="FILE_OR_NAME",
        help="a .safetensors or .pth file, hub:OWNER/REPOSITORY, https://..., or a published network: see 'mambair "
        "weights list'; 'best': the best published one for the task (default: those that come with mambair)",
    )
    add_import(add)
    add_to_network = add_network_group(parser, default_tile="256, or the network's own; 0: never cut")
    add_to_network("--batch", type=int, metavar="N", help="tiles in the network at once (default 4 on CUDA, else 2)")
    add_to_network("--seed", type=int, metavar="N", default=0, help="of MambaIRv2's routing noise (default 0)")
    _add_results(parser.add_argument_group("results"))
    _add_files(parser.add_argument_group("files"))
    return parser


def _add_results(group: argparse._ArgumentGroup) -> None:
    add, pixels = group.add_argument, at_least(1)
    add("--longest-side", type=pixels, metavar="N", help="pixels of the longer side, in place of --scale")
    add("--width", type=pixels, metavar="N", help="pixels; the height follows")
    add("--height", type=pixels, metavar="N", help="pixels; with --width: the largest result within both")
    add(
        "--strength",
        type=_share,
        metavar="S",
        default=1.0,
        help="0 to 1: share of the network; the rest is the input, enlarged (default 1; 0: resampling only, quick)",
    )
    add("--format", metavar="EXT", help="png, jpg, tif, webp, ...; same: that of each input (default png)")
    add("--quality", type=int, metavar="N", help="1 to 100 for jpg (default 95), avif (90) and webp (lossless)")
    add("--suffix", default="", metavar="TEXT", help="append this to the names of the results")
    add("--compare", action="store_true", help="beside each result, before and after: NAME_compare.png and .html")
    add("--open", action="store_true", help="show the result when it is done: the image, its comparison, the folder")


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--include", action="append", metavar="GLOB", default=[], help="only these names, or paths if it has a /")
    add("--exclude", action="append", metavar="GLOB", default=[], help="but not these; both may be repeated")
    add("--skip-existing", action="store_true", help="pass over images whose result is there, however it was made")
    add("--overwrite", action="store_true", help="also redo what the manifest says is done, with the same settings")
    add(
        "--manifest",
        type=path_name,
        metavar="FILE",
        help="JSON lines about each file (default: OUTPUT/manifest.jsonl)",
    )
    add("--manifest-details", action="store_true", help="also record host, process, whole paths and tracebacks there")
    add(
        "--max-pixels",
        type=pixel_count,
        metavar="N",
        help="refuse images with more: 200M, 1e9, ...; 0: no limit (default 268435456: 16384 x 16384)",
    )
    add("--allow-truncated", action="store_true", help="restore what there is of damaged images; the rest is black")
    add("--dry-run", action="store_true", help="show what would be done, and write no result")
    add_quiet(add)


def complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fill in what follows from other arguments; what contradicts another is a usage error.

    Afterwards ``options.input``, ``options.task`` and ``options.size`` are set (None: as the network makes results);
    ``options.output`` is None for a result beside its input.
    """
    if len(options.photo) > 1:
        parser.error(f"one PHOTO is taken at a time, got {len(options.photo)}; for many: -i FOLDER -o FOLDER")
    if options.photo and options.input is not None:
        parser.error(f"give PHOTO or -i, not both: got {options.photo[0]} and -i {options.input}")
    is_photo = bool(options.photo)
    if is_photo:
        options.input = options.photo[0]
        if options.output is None and options.input.is_dir():
            parser.error(f"{options.input} is a folder; name one for the results as well: -i {options.input} -o FOLDER")
    missing = [
        name for name, value in (("-i/--input", options.input), ("-o/--output", options.output)) if value is None
    ]
    if missing and not is_photo:
        has_photo = options.input is not None and options.input.is_file() and parser.prog == "mambair restore"
        hint = f" (for a result beside the image: mambair restore {options.input})" if has_photo else ""
        parser.error(f"the following arguments are required: {', '.join(missing)}{hint}")
    if options.task is None:
        options.task = AUTO if is_photo and not options.weights else "sr"
    if options.task == AUTO and options.weights:
        parser.error("--task auto chooses the network and --weights names one: give one of them")
    for degree in DEGREES:
        given = getattr(options, degree, None) is not None
        if given and degree != TASKS[options.task].degree:
            parser.error(f"--{degree} says nothing about the task {options.task}")
        if given and degree != "scale" and options.weights:
            parser.error(f"--{degree} chooses among the packaged weights and --weights names a file: give one of them")
    if options.skip_existing and options.overwrite:
        parser.error("--skip-existing and --overwrite contradict each other: give one of them")
    if (options.include or options.exclude) and options.input.is_file():
        parser.error(f"--include and --exclude choose files of a folder, and the input is one file, {options.input}")
    if options.tile == 0 and options.overlap is not None:
        parser.error("--overlap is of tiles and --tile 0 makes none: give one of them")
    if options.open and options.dry_run:
        parser.error("--open shows a result and --dry-run makes none: give one of them")
    options.size = _size(parser, options)


def _size(parser: argparse.ArgumentParser, options: argparse.Namespace) -> TargetSize | None:
    """The size of results that is asked for, or that of the task; None: as the network makes them."""
    sides = {"longest_side": options.longest_side, "width": options.width, "height": options.height}
    factor = getattr(options, "scale", None)
    has_side = any(side is not None for side in sides.values())
    enlarges = TASKS[options.task].degree == "scale"
    if enlarges and factor is None and not has_side and (options.photo or options.task != "sr"):
        factor = float(TASKS[AUTO].default)
    try:
        return TargetSize(factor, **sides) if factor is not None or has_side else None
    except ValueError as error:
        parser.error(str(error))


def _weights(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty; leave it out for the weights that come with mambair")
    return text


def _task(text: str) -> str:
    if text not in TASKS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(TASKS)}, got {text!r}{did_you_mean(text, TASKS)}")
    return text


def _factor(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0 such as 2 or 1.5, got {text!r}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
