"""What cutting images into tiles costs: loss of PSNR and largest difference, per size of tile and overlap.

python benchmarks/tiling_cost.py --data FOLDER [--output docs/tiling_cost.md]

FOLDER holds Set5/HR and Set5/LRbicx4, Set12 and classic5. The networks are those that come with mambair.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mambair import Restorer

SIGMA = 25
OVERLAPS = (0, 8, 16, 32, 64)
HEADER = (
    "| data set | images | tile | overlap | tiles | PSNR whole, dB | loss in tiles, dB | largest loss of an image, dB "
)
HEADER += "| largest difference, grey levels | work |"


@dataclass(frozen=True)
class DataSet:
    """Pairs to restore, how they are measured, and the tiles to try."""

    name: str
    task: str
    degree: int
    tiles: tuple[int, ...]
    crop: int


DATA_SETS = (
    DataSet("Set5", "sr", 4, (32, 64), crop=4),
    DataSet("Set12", "denoise", SIGMA, (128, 256), crop=0),
    DataSet("classic5", "denoise", SIGMA, (128, 256), crop=0),
)
MEANING = """\
PSNR of Set5 x4 in luma with 4 pixels of border left out; of the others in grey, after noise of sigma 25 (seed: the
image's number) was added. Values are rounded to 8 bits before they are measured, differences are taken before that.
Work: pixels that went through the network, the whole image being 1. Small tiles are tried because the images are small:
at the default, a tile of 256 with an overlap of 32, those of Set5 and seven of Set12 are not cut at all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the test sets")
    parser.add_argument("--output", type=Path, help="also write the table here, as Markdown")
    parser.add_argument("--sets", nargs="+", choices=[each.name for each in DATA_SETS], help="default: all")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from mambair.system.atomic_file import atomic_path
    from mambair.system.machine import describe_machine

    lines = [HEADER, "|---|" + "---:|" * 9]
    print("\n".join(lines))
    for data_set in DATA_SETS:
        if options.sets is None or data_set.name in options.sets:
            for row in rows_of(data_set, options.data):
                print(row, flush=True)
                lines.append(row)
    text = "\n".join(["# What tiles cost", "", MEANING, *lines, "", describe_machine(), ""])
    if options.output:
        with atomic_path(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def rows_of(data_set: DataSet, folder: Path) -> Iterator[str]:
    """One row of the table for each size of tile and overlap."""
    import numpy as np

    from mambair import Restorer
    from mambair.weights.packaged import default_weights

    pairs = list(_pairs(data_set, folder))
    path = default_weights(data_set.task, data_set.degree)
    whole = [Restorer.from_checkpoint(path, tile=0)(given) for given, _ in pairs]
    reference = [_psnr(result, truth, data_set.crop) for result, (_, truth) in zip(whole, pairs, strict=True)]
    for tile in data_set.tiles:
        for overlap in (each for each in OVERLAPS if 2 * each <= tile):
            restorer = Restorer.from_checkpoint(path, tile=tile, overlap=overlap)
            results = [restorer(given) for given, _ in pairs]
            psnr = [_psnr(result, truth, data_set.crop) for result, (_, truth) in zip(results, pairs, strict=True)]
            losses = np.subtract(reference, psnr)
            largest = max(np.abs(a - b).max() for a, b in zip(results, whole, strict=True)) * 255
            tiles, work = _work(restorer, [given.shape[:2] for given, _ in pairs])
            yield (
                f"| {data_set.name} | {len(pairs)} | {tile} | {overlap} | {tiles} | {np.mean(reference):.4f} "
                f"| {losses.mean():.4f} | {losses.max():.4f} | {largest:.1f} | {work:.2f} |"
            )


def _pairs(data_set: DataSet, folder: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(what the network gets, [H, W, C] float in [0, 1]; the truth, uint8)."""
    import numpy as np

    from mambair.images.files import list_images, read_image

    if data_set.task == "sr":
        truths = list_images(folder / data_set.name / "HR")
        for truth, given in zip(truths, list_images(folder / data_set.name / "LRbicx4"), strict=True):
            low = read_image(given).rgb()
            height, width = (side * data_set.degree for side in low.shape[:2])
            yield low.astype(np.float32) / 255, read_image(truth).rgb()[:height, :width]
        return
    for number, path in enumerate(list_images(folder / data_set.name)):
        truth: NDArray[Any] = read_image(path).pixels[:, :, :1]
        noise = np.random.default_rng(number).normal(0, data_set.degree / 255, truth.shape)
        yield (truth / 255 + noise).astype(np.float32), truth


def _psnr(result: NDArray[Any], truth: NDArray[Any], crop: int) -> float:
    import numpy as np

    from mambair.metrics import calculate_psnr

    rounded = np.rint(result * 255).astype(np.uint8)
    is_colour = truth.shape[2] == 3
    return calculate_psnr(rounded[:, :, ::-1], truth[:, :, ::-1], crop, test_y_channel=is_colour)


def _work(restorer: Restorer, sizes: Sequence[tuple[int, ...]]) -> tuple[int, float]:
    """(tiles in all, their pixels against those of the images)."""
    from mambair.inference.tiling import tile_spans

    tiles, pixels = 0, 0
    for height, width in sizes:
        rows, columns = (
            tile_spans(side, tile=restorer.tile, overlap=restorer.overlap, multiple=restorer.multiple)
            for side in (height, width)
        )
        tiles += len(rows) * len(columns)
        pixels += sum(row.stop - row.start for row in rows) * sum(column.stop - column.start for column in columns)
    return tiles, pixels / sum(height * width for height, width in sizes)


if __name__ == "__main__":
    sys.exit(main())
