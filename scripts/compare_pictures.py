"""Put pictures side by side at normal size: enlarged bicubically, and by a network.

    python scripts/compare_pictures.py                          # the README's picture, docs/images/example_x4.png
    python scripts/compare_pictures.py --held-out DATA --weights FILE --out sheet.png

--held-out draws ten pictures that no network of this project was trained on, from a folder with the public test sets
(DATA/test/RealSRSet, McMaster, Set5): five real photographs, and crops with noise, JPEG traces or neither. Look at the
sheet after every training: sharpened noise or JPEG blocks are a failure that PSNR on clean images does not show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SCALE = 4
EXAMPLES = ("astronaut", "chelsea")
GAP = 6  # pixels between panels
LABEL = 26  # height of the labels, pixels
SIDE = 96  # largest side of a held-out picture before it is enlarged
# (file below DATA/test, sigma of the noise, JPEG quality; 0: none), besides the photographs of RealSRSet
CROPS = (
    ("McMaster/1.tif", 0, 0),
    ("McMaster/7.tif", 8, 0),
    ("McMaster/13.tif", 0, 50),
    ("Set5/HR/butterfly.png", 5, 70),
    ("Set5/HR/woman.png", 0, 30),
)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images" / f"example_x{SCALE}.png")
    parser.add_argument("--weights", help="other weights than those that come with mambair")
    parser.add_argument("--held-out", type=Path, metavar="DATA", help="folder that holds test/RealSRSet, ...")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[REPOSITORY / "datasets" / "example" / f"lr_x{SCALE}" / f"{name}.png" for name in EXAMPLES],
        help="low-resolution images, one row each",
    )
    options = parser.parse_args(arguments)
    sys.path[:0] = [] if str(REPOSITORY) in sys.path else [str(REPOSITORY)]
    from mambair.images.files import read_rgb

    pictures = held_out(options.held_out) if options.held_out else map(read_rgb, options.images)
    draw(pictures, options.weights, options.out, columns=2 if options.held_out else 1)
    return 0


def held_out(data: Path) -> Iterator[np.ndarray]:
    """The ten pictures, [H, W, 3] uint8, at most SIDE pixels wide and high, always the same."""
    import numpy as np

    from mambair.data.jpeg_artifacts_dataset import compressed
    from mambair.images.files import list_images, read_rgb

    for path in list_images(data / "test" / "RealSRSet"):
        yield middle(read_rgb(path))
    for name, sigma, quality in CROPS:
        picture = middle(read_rgb(data / "test" / name))
        noise = np.random.default_rng(0).normal(0, sigma, picture.shape)
        picture = np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
        yield compressed(picture, quality, "4:2:0") if quality else picture


def middle(picture: np.ndarray) -> np.ndarray:
    """The middle of a picture, at most SIDE pixels wide and high."""
    top, left = (max(0, (length - SIDE) // 2) for length in picture.shape[:2])
    return picture[top : top + SIDE, left : left + SIDE]


def draw(pictures: Iterator[np.ndarray], weights: str | None, out: Path, *, columns: int) -> None:
    """Write the comparison to ``out``: ``columns`` pictures in a row, bicubic on the left and ours on the right."""
    import numpy as np

    from mambair import Restorer
    from mambair.images.files import DecodedImage, write_image
    from mambair.images.resize import imresize
    from mambair.weights.packaged import default_weights

    restorer = Restorer.from_checkpoint(weights or default_weights("sr", SCALE), device="cpu")
    panels = [panel for low in pictures for panel in (imresize(low, restorer.scale), restorer(low))]
    rows = [panels[start : start + 2 * columns] for start in range(0, len(panels), 2 * columns)]
    write_image(out, DecodedImage(np.asarray(sheet(rows, ("bicubic", "ours") * columns))))
    print(out)


def sheet(rows: list[list[np.ndarray]], labels: tuple[str, ...]) -> Image.Image:
    """Panels in a grid on white, with a label above each column."""
    from PIL import Image, ImageDraw, ImageFont

    width = max(panel.shape[1] for row in rows for panel in row)
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    size = (len(labels) * (width + GAP) - GAP, LABEL + sum(heights) + GAP * (len(rows) - 1))
    image = Image.new("RGB", size, "white")
    brush, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    for column, label in enumerate(labels):
        brush.text((column * (width + GAP) + width / 2, LABEL / 2), label, fill="black", font=font, anchor="mm")
    top = LABEL
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            left = column * (width + GAP) + (width - panel.shape[1]) // 2
            image.paste(Image.fromarray(panel), (left, top))
        top += height + GAP
    return image


if __name__ == "__main__":
    sys.exit(main())
