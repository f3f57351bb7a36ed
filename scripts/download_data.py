"""Fetch public data sets by name into the folders that the option files expect.

    python scripts/download_data.py --list
    python scripts/download_data.py Set5 Set14 DIV2K --scale 4
    python scripts/download_data.py sr dn car --root /data/restoration

An interrupted download goes on where it stopped when the same command is given again. Files whose checksum a page
states are compared with it; of the others size and sha256 are recorded in downloads.lock.json at the first download,
and later ones must be the same. The sets stay under their authors' terms; --list names their pages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

SCALES = (2, 3, 4)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code: 0 all there, 1 some could not be had, 2 usage.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="data sets or suites (sr, dn, car); see --list")
    add(
        "--root", type=Path, default=Path("datasets"), metavar="DIR", help="folder of all data sets (default: datasets)"
    )
    add("--scale", type=int, nargs="+", choices=SCALES, default=list(SCALES), help="reductions wanted (default: all)")
    add("--no-reductions", action="store_true", help="ground truth only (prepare_data.py lr makes the same reductions)")
    add("--remove-archives", action="store_true", help="delete the archives that were unpacked")
    add("--attempts", type=int, default=5, metavar="N", help="fruitless attempts in a row before giving up (default 5)")
    add("--dry-run", action="store_true", help="say what would be fetched from where, and do nothing")
    add("--list", action="store_true", help="list the data sets and their pages")
    arguments = parser.parse_args(argv)
    if not arguments.names and not arguments.list:
        parser.error("name a data set or a suite, or ask for --list")
    if arguments.attempts < 1:
        parser.error("--attempts must be at least 1")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = parse_arguments(argv)
    import logging

    from mambair.data_tools.catalogue import DATASETS, SUITES, UnknownDatasetError, datasets_of
    from mambair.data_tools.dataset_download import DatasetDownloads
    from mambair.system.lock_file import LockError
    from mambair.system.tables import printable

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if arguments.list:
        for dataset in DATASETS.values():
            print(f"{dataset.name:10} {dataset.title}\n{'':10} {dataset.page}")
            if not all(part.file.is_pinned for part in dataset.parts):
                print(f"{'':10} unpinned: from a branch without checksums; the first download is recorded")
        for suite, names in SUITES.items():
            print(f"{suite:10} the suite {', '.join(names)}")
        return 0
    try:
        datasets = datasets_of(arguments.names)
        downloads = DatasetDownloads(
            arguments.root,
            scales=() if arguments.no_reductions else arguments.scale,
            attempts=arguments.attempts,
            progress=progress_bar,
        )
    except (UnknownDatasetError, LockError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if arguments.dry_run:
        for dataset in datasets:
            for file, parts in downloads.wanted(dataset).items():
                print(f"{file.url} -> {', '.join(str(arguments.root / part.folder) for part in parts)}")
        return 0
    outcomes = [downloads.obtain(dataset) for dataset in datasets]
    if arguments.remove_archives:
        downloads.remove_archives()
    for outcome in outcomes:
        print(f"{outcome.dataset.name}: {len(outcome.done)} done, {len(outcome.failed)} failed")
        if outcome.by_hand and outcome.dataset.parts:
            print(f"  by hand: {outcome.by_hand}")
        for failure in outcome.failed:
            print(f"  failed: {printable(failure)}", file=sys.stderr)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def progress_bar(name: str) -> Callable[[int, int | None], None]:
    """A bar for one file, which appears when its first bytes arrive."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def progress(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, initial=done, desc=name, unit="B", unit_scale=True, file=sys.stderr)
        bar.n = done
        bar.refresh()
        if done == total:
            bar.close()

    return progress


if __name__ == "__main__":
    sys.exit(main())
