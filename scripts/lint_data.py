"""Look over a data set before a training does: files, pairs, sizes, and test images among the training images.

    python scripts/lint_data.py --gt datasets/DF2K/HR --lq datasets/DF2K/LR_bicubic/X4 --scale 4 --filename-tmpl '{}x4'
    python scripts/lint_data.py --gt datasets/DFWB/HQ --gt-size 128 --test datasets/CBSD68/HQ datasets/Kodak24/HQ

Every image is decoded whole. Pairs are found by stem, whatever the suffix. The same picture is found again after
resizing, recompression, loss of colour, mirroring and turning; cuttings of it are not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

INTERRUPTED = 130  # what shells report for Ctrl-C


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0 nothing wrong (warnings may be), 1 faults were found, 2 usage, 130 interrupted.",
    )
    add = parser.add_argument
    add("--gt", required=True, type=Path, metavar="DIR", help="ground truth")
    add("--lq", type=Path, metavar="DIR", help="its low-quality partners")
    add("--scale", type=int, default=1, help="how much larger the ground truth is (default 1)")
    add("--filename-tmpl", default="{}", help="name of a partner, {} being that of its ground truth (default {})")
    add("--gt-size", type=int, default=0, metavar="N", help="patch of the training, which every image must hold")
    add(
        "--test", type=Path, nargs="+", default=[], metavar="DIR", help="test sets that must not be in the ground truth"
    )
    add("--no-duplicates", action="store_true", help="do not look for the same picture twice")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all)")
    arguments = parser.parse_args(argv)
    if arguments.scale < 1 or arguments.workers < 1 or arguments.gt_size < 0:
        parser.error("--scale and --workers must be at least 1, --gt-size not negative")
    if "{}" not in arguments.filename_tmpl:
        parser.error("--filename-tmpl needs {} where the name of the ground truth stands")
    if arguments.test and arguments.no_duplicates:
        parser.error("--test looks for duplicates: leave --no-duplicates out")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = parse_arguments(argv)
    from tqdm import tqdm

    from mambair.data_tools.lint import Lint
    from mambair.images.files import list_images
    from mambair.system.tables import printable

    folders = [folder for folder in (arguments.gt, arguments.lq, *arguments.test) if folder is not None]
    try:
        with tqdm(total=sum(len(list_images(folder)) for folder in folders), unit="image", file=sys.stderr) as bar:
            lint = Lint(
                scale=arguments.scale,
                gt_size=arguments.gt_size,
                filename_tmpl=arguments.filename_tmpl,
                duplicates=not arguments.no_duplicates,
                workers=arguments.workers,
                progress=bar.update,
            )
            findings = lint.run(arguments.gt, arguments.lq, arguments.test)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    for finding in sorted(findings, key=lambda finding: not finding.is_fault):
        print(f"{'fault' if finding.is_fault else 'warning'}: {finding.kind}: {printable(finding.text)}")
    kinds = Counter(finding.kind for finding in findings)
    print(", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "nothing found")
    return 1 if any(finding.is_fault for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
