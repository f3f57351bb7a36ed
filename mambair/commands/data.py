"""``mambair data``: download public data sets, prepare them for training, check them, and show what a network sees."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.arguments import AddArgument, add_import, add_quiet, at_least, command_parser, import_own_code
from mambair.commands.recipes import OPTION_FILE_HELP, option_file
from mambair.system.console import log_to_stderr, printable, progress_bar
from mambair.system.exit_codes import DONE, SOME_FAILED, USAGE_ERROR, ends_in_order

if TYPE_CHECKING:
    from tqdm import tqdm

    from mambair.data_tools.dataset_download import DatasetDownloads, Outcome
    from mambair.data_tools.parallel import WorkReport

SCALES = (2, 3, 4)
GOES_ON = "what is finished stays; the same command goes on with the rest"
COMMANDS = {
    "download": "fetch public data sets by name into the folders that the option files expect",
    "prepare": "make sub-images, reductions, an LMDB or a list of a data set",
    "lint": "check files, pairs and sizes of a data set, and look for test images among the training images",
    "show": "draw a contact sheet of the samples that an option file makes",
}
EXAMPLES = {
    "download": """
mambair data download --list
mambair data download Set5 Set14 DIV2K --scale 4
mambair data download classic-sr color-dn gray-car --root /data/restoration
""",
    "prepare": """
mambair data prepare sub-images datasets/DIV2K/DIV2K_train_HR datasets/DIV2K/HR_sub
mambair data prepare sub-images HR HR_sub --lq LR/X4 --lq-output LR_sub/X4 --scale 4 --filename-tmpl '{}x4'
mambair data prepare lr datasets/Set5/HR datasets/Set5/LR_bicubic --scale 2 3 4
mambair data prepare lmdb datasets/DIV2K/HR_sub datasets/DIV2K/HR_sub.lmdb
mambair data prepare meta-info datasets/DIV2K/HR_sub datasets/DIV2K/HR_sub.txt
""",
    "lint": """
mambair data lint --gt datasets/DF2K/HR --lq datasets/DF2K/LR_bicubic/X4 --scale 4 --filename-tmpl '{}x4'
mambair data lint --gt datasets/DFWB/HQ --gt-size 128 --test datasets/CBSD68/HQ datasets/Kodak24/HQ
""",
    "show": """
mambair data show options/train_SR_x4.yml -o sheet.png
mambair data show options/train_SR_x4.yml -o sheet.png --dataset val --count 4
""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``download``, ``prepare``, ``lint`` or ``show``; ``arguments`` default to the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    works = {"download": _download, "prepare": _prepare, "lint": _lint, "show": _show}
    if arguments and arguments[0] in works:
        return works[arguments[0]](arguments[1:])
    examples = "\n".join(text.strip().splitlines()[-1] for text in EXAMPLES.values())
    parser = command_parser("mambair data", "Get data sets and make them ready for training.", examples)
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        kinds.add_parser(name, help=summary)
    parser.parse_args(arguments)
    raise AssertionError("argparse refuses what is none of the commands")


# -- download ---------------------------------------------------------------------------------------------------------


def _download_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "mambair data download",
        "Fetch public data sets by name into the folders that the option files expect. The same command, given again, "
        "goes on with an interrupted download. Files whose checksum a page states are compared with it; of the others "
        "size and sha256 are recorded in downloads.lock.json at the first download, and later ones must be the same. "
        "The sets stay under their authors' terms; --list shows their pages.",
        EXAMPLES["download"],
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets or suites; see --list")
    add("--root", type=Path, default=Path("datasets"), metavar="DIR", help="folder of all data sets (default datasets)")
    add("--scale", type=int, nargs="+", choices=SCALES, default=list(SCALES), help="which reductions (default all)")
    add("--no-reductions", action="store_true", help="ground truth only ('prepare lr' makes the same reductions)")
    add("--remove-archives", action="store_true", help="delete the archives that were unpacked")
    attempts = "attempts in a row that bring no byte before giving up (default 5)"
    add("--attempts", type=at_least(1), default=5, metavar="N", help=attempts)
    add("--dry-run", action="store_true", help="show what would be fetched from where, and do nothing")
    add("--list", action="store_true", help="list the data sets and their pages")
    add_quiet(add)
    return parser


@ends_in_order(GOES_ON)
def _download(arguments: Sequence[str]) -> int:
    parser = _download_parser()
    options = parser.parse_args(arguments)
    if not options.names and not options.list:
        parser.error("name a data set or a suite, or use --list")
    import logging

    from mambair.data_tools.catalogue import DATASETS, SUITES, datasets_of
    from mambair.data_tools.dataset_download import DatasetDownloads
    from mambair.system.download import download_bar, no_progress
    from mambair.system.errors import RequestError
    from mambair.system.lock_file import LockError

    log_to_stderr(logging.INFO)
    if options.list:
        for dataset in DATASETS.values():
            print(f"{dataset.name:10} {dataset.title}\n{'':10} {dataset.page}")
            if not all(part.file.is_pinned for part in dataset.parts):
                print(f"{'':10} unpinned: from a branch without checksums; the first download is recorded")
        for suite, names in SUITES.items():
            print(f"{suite:10} the suite {', '.join(names)}")
        return DONE
    try:
        datasets = datasets_of(options.names)
        downloads = DatasetDownloads(
            options.root,
            scales=() if options.no_reductions else options.scale,
            attempts=options.attempts,
            progress=(lambda name: no_progress) if options.quiet else download_bar,
        )
    except (RequestError, LockError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    if options.dry_run:
        for dataset in datasets:
            for file, parts in downloads.wanted(dataset).items():
                print(f"{file.url} -> {', '.join(str(options.root / part.folder) for part in parts)}")
        return DONE
    outcomes = [downloads.obtain(dataset) for dataset in datasets]
    return _conclude_download(downloads, outcomes, options.remove_archives)


def _conclude_download(downloads: DatasetDownloads, outcomes: Sequence[Outcome], remove_archives: bool) -> int:
    if remove_archives:
        downloads.remove_archives()
    for outcome in outcomes:
        print(f"{outcome.dataset.name}: {len(outcome.done)} done, {len(outcome.failed)} failed")
        if outcome.by_hand and outcome.dataset.parts:
            print(f"  by hand: {outcome.by_hand}")
        for failure in outcome.failed:
            print(f"  failed: {printable(failure)}", file=sys.stderr)
    return SOME_FAILED if any(outcome.failed for outcome in outcomes) else DONE


# -- prepare ----------------------------------------------------------------------------------------------------------


def _prepare_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "mambair data prepare",
        "Make a data set ready for training. The same command, given again, goes on where an earlier one was stopped. "
        "Everything written is read back and compared. Images that cannot be used are listed, the others are done.",
        EXAMPLES["prepare"],
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("source", type=Path, help="folder of images")
    shared.add_argument("output", type=Path, help="folder, database or file to make")
    _add_workers(shared.add_argument)
    add_quiet(shared.add_argument)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    cut = kinds.add_parser("sub-images", parents=[shared], help="overlapping squares, which training reads faster")
    cut.add_argument("--size", type=int, default=480, help="side in pixels of the ground truth (default 480)")
    cut.add_argument("--step", type=int, default=240, help="pixels from one to the next (default 240)")
    cut.add_argument("--threshold", type=int, default=0, help="pixels at the far edge that may be lost (default 0)")
    cut.add_argument("--lq", type=Path, metavar="DIR", help="low-quality images, cut at the same places")
    cut.add_argument("--lq-output", type=Path, metavar="DIR", help="folder of their sub-images")
    cut.add_argument("--scale", type=int, default=1, help="of the pairs (default 1)")
    cut.add_argument(
        "--filename-tmpl", type=_template, default="{}", help="name of a partner, {} being that of its ground truth"
    )
    reduce = kinds.add_parser("lr", parents=[shared], help="reductions as MATLAB's imresize makes them")
    reduce.add_argument("--scale", type=int, nargs="+", default=[4], help="one folder OUTPUT/X<scale> each (default 4)")
    reduce.add_argument(
        "--filename-tmpl",
        type=_template_of_scale,
        default="{}x{scale}",
        help="name of a reduction (default {}x{scale})",
    )
    for kind in (cut, reduce):
        kind.add_argument("--verify", action="store_true", help="compare what is there already pixel by pixel")
    kinds.add_parser("lmdb", parents=[shared], help="one database; keys are names below SOURCE without suffix")
    kinds.add_parser("meta-info", parents=[shared], help="a text file with names and sizes, for meta_info_file")
    return parser


@ends_in_order(GOES_ON)
def _prepare(arguments: Sequence[str]) -> int:
    parser = _prepare_parser()
    options = parser.parse_args(arguments)
    if options.kind == "sub-images" and (options.lq is None) != (options.lq_output is None):
        parser.error("--lq and --lq-output must be given together")
    from mambair.data_tools.prepare import UnfinishedError

    with progress_bar(None, description=options.kind, unit="image", quiet=options.quiet) as bar:
        try:
            report = _make(options, bar)
        except UnfinishedError as error:
            report, message, code = error.report, str(error), SOME_FAILED
        except (ValueError, OSError) as error:  # a folder, a size or a setting that cannot be used
            print(printable(str(error)), file=sys.stderr)
            return USAGE_ERROR
        else:
            message, code = f"{options.output}: {report.summary()}", SOME_FAILED if report.failed else DONE
    for source, reason in report.failed:
        print(printable(f"failed: {source}: {reason.removeprefix(f'{source}: ')}"), file=sys.stderr)
    print(printable(message), file=sys.stderr if code else sys.stdout)
    return code


def _make(options: argparse.Namespace, bar: tqdm) -> WorkReport:
    """Make what the command line says.

    Raises:
        ValueError, OSError: it cannot be begun.
    """
    from mambair.data_tools.prepare import make_lmdb, make_reductions, make_sub_images, write_meta_info
    from mambair.data_tools.sub_images import Grid
    from mambair.images.files import list_images

    bar.reset(len(list_images(options.source, recursive=options.kind in ("lmdb", "meta-info"))))
    shared = {"workers": options.workers, "progress": bar.update}
    if options.kind == "sub-images":
        return make_sub_images(
            options.source,
            options.output,
            Grid(options.size, options.step, options.threshold, options.scale),
            partners=options.lq,
            partners_target=options.lq_output,
            filename_tmpl=options.filename_tmpl,
            verify=options.verify,
            **shared,
        )
    if options.kind == "lr":
        folders = {scale: options.output / f"X{scale}" for scale in options.scale}
        template, verify = options.filename_tmpl, options.verify
        return make_reductions(options.source, folders, filename_tmpl=template, verify=verify, **shared)
    make = make_lmdb if options.kind == "lmdb" else write_meta_info
    return make(options.source, options.output, **shared)


# -- lint -------------------------------------------------------------------------------------------------------------


def _lint_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "mambair data lint",
        "Check a data set before a training: files, pairs, sizes, and test images among the training images. Every "
        "image is decoded whole. Pairs are found by stem, whatever the suffix. A picture is found again after "
        "resizing, recompression, loss of colour, mirroring and turning; parts cut out of it are not found. Faults "
        "count as failures (exit code 1), warnings do not.",
        EXAMPLES["lint"],
    )
    add = parser.add_argument
    add("--gt", required=True, type=Path, metavar="DIR", help="ground truth")
    add("--lq", type=Path, metavar="DIR", help="its low-quality partners")
    add("--scale", type=at_least(1), default=1, help="size of the ground truth over that of its partner (default 1)")
    add(
        "--filename-tmpl",
        type=_template,
        default="{}",
        help="name of a partner, {} being that of its ground truth (default {})",
    )
    add(
        "--gt-size",
        type=at_least(0),
        default=0,
        metavar="N",
        help="side of the patches in training; smaller images are faults",
    )
    tests = "test sets that must not be in the ground truth"
    add("--test", type=Path, nargs="+", default=[], metavar="DIR", help=tests)
    add("--no-duplicates", action="store_true", help="do not look for the same picture twice")
    _add_workers(add)
    add_quiet(add)
    return parser


@ends_in_order("nothing was changed; give the same command again")
def _lint(arguments: Sequence[str]) -> int:
    parser = _lint_parser()
    options = parser.parse_args(arguments)
    if options.test and options.no_duplicates:
        parser.error("--test looks for duplicates: leave --no-duplicates out")
    from mambair.data_tools.lint import Lint
    from mambair.images.files import list_images

    folders = [folder for folder in (options.gt, options.lq, *options.test) if folder is not None]
    try:
        total = sum(len(list_images(folder)) for folder in folders)
        with progress_bar(total, unit="image", quiet=options.quiet) as bar:
            lint = Lint(
                scale=options.scale,
                gt_size=options.gt_size,
                filename_tmpl=options.filename_tmpl,
                duplicates=not options.no_duplicates,
                workers=options.workers,
                progress=bar.update,
            )
            findings = lint.run(options.gt, options.lq, options.test)
    except (ValueError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    for finding in sorted(findings, key=lambda finding: not finding.is_fault):
        print(f"{'fault' if finding.is_fault else 'warning'}: {finding.kind}: {printable(finding.text)}")
    kinds = Counter(finding.kind for finding in findings)
    print(", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "nothing found")
    return SOME_FAILED if any(finding.is_fault for finding in findings) else DONE


def _template(text: str) -> str:
    """A name with {} in it; what it leads to stays below its folder."""
    if text.count("{}") != 1 or set("{}\\") & set(text.replace("{}", "")) or {"", ".."} & set(text.split("/")):
        raise argparse.ArgumentTypeError(f"expected a name with {{}}, once, for that of the ground truth, got {text!r}")
    return text


def _template_of_scale(text: str) -> str:
    _template(text.replace("{scale}", ""))
    return text


def _add_workers(add: AddArgument) -> None:
    count = os.cpu_count() or 1
    add("--workers", type=at_least(1), default=count, metavar="N", help="processes (default: one for each core)")


# -- show -------------------------------------------------------------------------------------------------------------


def _show_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "mambair data show",
        "Draw a contact sheet of the data of an option file: each input beside its ground truth. A text file of the "
        "same name lists the degradation of each sample.",
        EXAMPLES["show"],
    )
    add = parser.add_argument
    add("option_file", type=option_file, metavar="OPT", help=OPTION_FILE_HELP)
    add("-o", "--output", type=Path, required=True, metavar="SHEET", help="picture to write")
    add("--dataset", default="train", metavar="NAME", help="train (default), val, test_1, ...")
    add("-n", "--count", type=at_least(1), default=16, metavar="N", help="how many samples (default 16)")
    add_import(add)
    return parser


@ends_in_order("nothing was written")
def _show(arguments: Sequence[str]) -> int:
    parser = _show_parser()
    options = parser.parse_args(arguments)
    import_own_code(parser, options)
    from mambair.data_tools.show import show_data
    from mambair.options import load_options

    label = options.dataset
    try:
        opt = load_options(options.option_file, is_train=not label.startswith("test"))
        text = show_data(opt, options.output, label=label, count=options.count)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)  # OptionsError has several lines, and escapes what it quotes
        return USAGE_ERROR
    print(printable(f"{options.output} and {text}"))
    return DONE
