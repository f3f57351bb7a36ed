"""Draw the README's picture: an example image as it is, enlarged bicubically, and enlarged by the packaged weights.

python scripts/make_readme_picture.py        # writes docs/images/example_x4.png
"""

from __future__ import annotations

import argparse
import sys
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


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images" / f"example_x{SCALE}.png")
    parser.add_argument("--weights", type=Path, help="other weights than those that come with mambair")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[REPOSITORY / "datasets" / "example" / f"lr_x{SCALE}" / f"{name}.png" for name in EXAMPLES],
        help="low-resolution images, one row each",
    )
    options = parser.parse_args(arguments)
    draw(options.images, options.weights, options.out)
    return 0


def draw(images: list[Path], weights: Path | None, out: Path) -> None:
    """Write the picture to ``out``: a row for each image; input, bicubic, ours from left to right."""
    sys.path[:0] = [] if str(REPOSITORY) in sys.path else [str(REPOSITORY)]
    import numpy as np

    from mambair import Restorer
    from mambair.images.files import DecodedImage, read_rgb, write_image
    from mambair.images.resize import imresize
    from mambair.weights.packaged import default_weights

    restorer = Restorer.from_checkpoint(weights or default_weights("sr", SCALE), device="cpu")
    rows = []
    for path in images:
        low = read_rgb(path)
        pixels = low.repeat(restorer.scale, axis=0).repeat(restorer.scale, axis=1)
        rows.append([pixels, imresize(low, restorer.scale), restorer(low)])
    labels = (f"input, pixels x{restorer.scale}", "bicubic", "ours")
    write_image(out, DecodedImage(np.asarray(_sheet(rows, labels))))
    print(out)


def _sheet(rows: list[list[np.ndarray]], labels: tuple[str, ...]) -> Image.Image:
    """Panels in a grid on white, with a label above each column."""
    from PIL import Image, ImageDraw, ImageFont

    width = max(row[0].shape[1] for row in rows)
    heights = [row[0].shape[0] for row in rows]
    sheet = Image.new("RGB", (len(labels) * (width + GAP) - GAP, LABEL + sum(heights) + GAP * (len(rows) - 1)), "white")
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, label in enumerate(labels):
        brush.text((column * (width + GAP) + width / 2, LABEL / 2), label, fill="black", font=font, anchor="mm")
    top = LABEL
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            left = column * (width + GAP) + (width - panel.shape[1]) // 2
            sheet.paste(Image.fromarray(panel), (left, top))
        top += height + GAP
    return sheet


if __name__ == "__main__":
    sys.exit(main())
