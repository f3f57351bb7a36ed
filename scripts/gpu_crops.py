"""Cut small training images that travel easily: the liveliest crops of a folder's images, lossless, up to a total size.

    python scripts/gpu_crops.py IMAGES CROPS [--size 256] [--megabytes 25] [--validation 8]

Each image gives its square of highest variance of the Laplacian; more squares of each follow in rounds while there is
room. CROPS/train gets them as lossless WebP; CROPS/val gets the best square of every n-th image, which then gives none
to CROPS/train.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def liveliest(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    """The squares of a grid of ``pixels`` [H, W, 3], the one with the most detail first."""
    rows, columns = (range(0, extent - size + 1, size) for extent in pixels.shape[:2])
    squares = [pixels[top : top + size, left : left + size] for top in rows for left in columns]
    return sorted(squares, key=_detail, reverse=True)


def _detail(square: np.ndarray) -> float:
    grey = square.astype(np.float32).mean(axis=2)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())


def cut(source: Path, target: Path, *, size: int, budget: int, validation: int) -> tuple[int, int]:
    """Write the crops; returns the number of them and their bytes.

    Args:
        source: a folder of images, read recursively.
        target: a folder that is not there yet.
        size: side of the squares in pixels.
        budget: bytes of all training crops at most.
        validation: number of images that give a validation crop and no training crop.
    """
    from mambair.images.files import list_images, read_image

    paths = list_images(source, recursive=True)
    step = max(len(paths) // validation, 1) if validation else 0
    held_out = paths[::step][:validation] if step else []
    for name in ("train", "val"):
        (target / name).mkdir(parents=True)
    count = written = 0
    for index, path in enumerate(held_out):
        squares = liveliest(read_image(path).pixels, size)
        for square in squares[:1]:
            (target / "val" / f"{index:04d}.webp").write_bytes(_encoded(square))
    rest = [path for path in paths if path not in set(held_out)]
    for rank in range(64):
        found = False
        for index, path in enumerate(rest):
            squares = liveliest(read_image(path).pixels, size)
            if rank >= len(squares):
                continue
            found, content = True, _encoded(squares[rank])
            if written + len(content) > budget:
                return count, written
            (target / "train" / f"{index:04d}_{rank}.webp").write_bytes(content)
            count, written = count + 1, written + len(content)
        if not found:
            break
    return count, written


def _encoded(square: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "WEBP", lossless=True, quality=100, method=4)
    return stream.getvalue()


def main() -> int:
    """Returns 0; wrong arguments leave through argparse's SystemExit(2)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IMAGES")
    parser.add_argument("target", type=Path, metavar="CROPS")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--megabytes", type=float, default=25.0)
    parser.add_argument("--validation", type=int, default=8)
    options = parser.parse_args()
    if options.target.exists():
        parser.error(f"{options.target} exists; give a new folder")
    budget = int(options.megabytes * 1e6)
    count, written = cut(
        options.source, options.target, size=options.size, budget=budget, validation=options.validation
    )
    if not count:
        parser.error(f"{options.source}: no image of at least {options.size} x {options.size} pixels")
    print(f"{options.target}: {count} crops, {written / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
