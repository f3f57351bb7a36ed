"""Make a data set ready for training; a command that was interrupted goes on when it is given again.

    python scripts/prepare_data.py sub-images datasets/DIV2K/DIV2K_train_HR datasets/DIV2K/HR_sub
    python scripts/prepare_data.py lr datasets/Set5/HR datasets/Set5/LR_bicubic --scale 2 3 4
    python scripts/prepare_data.py lmdb datasets/DIV2K/HR_sub datasets/DIV2K/HR_sub.lmdb
    python scripts/prepare_data.py meta-info datasets/DIV2K/HR_sub datasets/DIV2K/HR_sub.txt

Pairs are cut at the same places:

    python scripts/prepare_data.py sub-images HR HR_sub --lq LR/X4 --lq-output LR_sub/X4 --scale 4 \\
        --filename-tmpl '{}x4'

Everything written is read back and compared. Images that cannot be used are listed, the others are done.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

if TYPE_CHECKING:
    from tqdm import tqdm

    from mambair.data_tools.parallel import WorkReport

INTERRUPTED = 130  # what shells report for Ctrl-C


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0 all done, 1 some images failed, 2 usage, 130 interrupted.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("source", type=Path, help="folder of images")
    shared.add_argument("output", type=Path, help="what to make")
    shared.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all)"
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    cut = kinds.add_parser("sub-images", parents=[shared], help="overlapping squares, which training reads faster")
    cut.add_argument("--size", type=int, default=480, help="side in pixels of the ground truth (default 480)")
    cut.add_argument("--step", type=int, default=240, help="pixels from one to the next (default 240)")
    cut.add_argument("--threshold", type=int, default=0, help="pixels at the far edge that may be lost (default 0)")
    cut.add_argument("--lq", type=Path, metavar="DIR", help="low-quality images, cut at the same places")
    cut.add_argument("--lq-output", type=Path, metavar="DIR", help="folder of their sub-images")
    cut.add_argument("--scale", type=int, default=1, help="of the pairs (default 1)")
    cut.add_argument("--filename-tmpl", default="{}", help="name of a partner, {} being that of its ground truth")
    reduce = kinds.add_parser("lr", parents=[shared], help="reductions as MATLAB's imresize makes them")
    reduce.add_argument("--scale", type=int, nargs="+", default=[4], help="one folder OUTPUT/X<scale> each (default 4)")
    reduce.add_argument("--filename-tmpl", default="{}x{scale}", help="name of a reduction (default {}x{scale})")
    for parts in (cut, reduce):
        parts.add_argument("--verify", action="store_true", help="compare what is there already pixel by pixel")
    kinds.add_parser("lmdb", parents=[shared], help="one database, keys are names below SOURCE without suffix")
    kinds.add_parser("meta-info", parents=[shared], help="a text file with names and sizes, for meta_info_file")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")
    if arguments.kind == "sub-images" and (arguments.lq is None) != (arguments.lq_output is None):
        parser.error("--lq and --lq-output belong together")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = parse_arguments(argv)
    from tqdm import tqdm

    from mambair.data_tools.prepare import UnfinishedError
    from mambair.system.tables import printable

    with tqdm(desc=arguments.kind, unit="image", file=sys.stderr) as bar:
        try:
            report = prepare(arguments, bar)
        except UnfinishedError as error:
            report, message, code = error.report, str(error), 1
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            return INTERRUPTED
        except (ValueError, OSError) as error:  # a folder, a size or a setting that cannot be
            print(printable(str(error)), file=sys.stderr)
            return 2
        else:
            message, code = f"{arguments.output}: {report.summary()}", 1 if report.failed else 0
    for source, reason in report.failed:
        print(printable(f"failed: {source}: {reason.removeprefix(f'{source}: ')}"), file=sys.stderr)
    print(printable(message), file=sys.stderr if code else sys.stdout)
    return code


def prepare(arguments: argparse.Namespace, bar: tqdm) -> WorkReport:
    """Do what is asked for.

    Raises:
        ValueError, OSError: it cannot be begun.
    """
    from mambair.data_tools.prepare import make_lmdb, make_reductions, make_sub_images, write_meta_info
    from mambair.data_tools.sub_images import Grid
    from mambair.images.files import list_images

    bar.reset(len(list_images(arguments.source, recursive=arguments.kind in ("lmdb", "meta-info"))))
    shared = {"workers": arguments.workers, "progress": bar.update}
    if arguments.kind == "sub-images":
        return make_sub_images(
            arguments.source,
            arguments.output,
            Grid(arguments.size, arguments.step, arguments.threshold, arguments.scale),
            partners=arguments.lq,
            partners_target=arguments.lq_output,
            filename_tmpl=arguments.filename_tmpl,
            verify=arguments.verify,
            **shared,
        )
    if arguments.kind == "lr":
        folders = {scale: arguments.output / f"X{scale}" for scale in arguments.scale}
        template, verify = arguments.filename_tmpl, arguments.verify
        return make_reductions(arguments.source, folders, filename_tmpl=template, verify=verify, **shared)
    make = make_lmdb if arguments.kind == "lmdb" else write_meta_info
    return make(arguments.source, arguments.output, **shared)


if __name__ == "__main__":
    sys.exit(main())
