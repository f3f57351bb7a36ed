"""How often a quick look at a picture is right: clean pictures, JPEG of known quality, noise of known strength.

    python benchmarks/quick_look.py DATA [DATA ...]      # folders of images without damage

Each picture is looked at as it is, and with synthetic damage. Right is: no network for damage where there is none (and
at noise of sigma 5), JPEG below quality 80 seen as such, also after it was cut and stored as PNG at quality 10 and 30;
noise of sigma 15 and more seen as such. What the estimates are off by is printed, too.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

QUALITIES = (10, 20, 30, 50, 70, 90)
SIGMAS = (5, 15, 25, 50)
CUT_OFF = (10, 30)
CUT = (3, 5)  # columns and rows that are cut from a decoded JPEG, so that its grid lies elsewhere


def main() -> None:
    """Print a table of kinds of damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders of images without damage")
    options = parser.parse_args()
    from mambair.images.files import list_images
    from mambair.system.machine import describe_machine
    from mambair.system.tables import markdown

    paths = [path for folder in options.data for path in list_images(folder)]
    rows = [["damage", "pictures", "right", "estimate: least, mean, most"]]
    rows += [[str(cell) for cell in row] for row in table(paths)]
    print(markdown(rows))
    print(f"\n{len(paths)} pictures. {describe_machine('numpy', 'Pillow')}")


def table(paths: list[Path]) -> Iterator[tuple[str, int, str, str]]:
    """A row for each kind of damage: its name, how many pictures, how many were seen rightly, the estimates."""
    import numpy as np

    from mambair.inference.quick_look import look_at

    for name, is_right, estimate, damaged in kinds():
        looks = [look_at(each) for index, path in enumerate(paths) for each in damaged(path, index)]
        right = sum(is_right(look) for look in looks)
        values = [estimate(look) for look in looks]
        yield (
            name,
            len(looks),
            f"{right} ({right / len(looks):.0%})",
            (f"{min(values):.4g}, {np.mean(values):.4g}, {max(values):.4g}"),
        )


def kinds() -> Iterator[tuple]:
    """Name, what is right, what is estimated, and the damage, of each row."""
    yield "none", lambda look: not look.is_noisy and not look.is_compressed, lambda look: look.noise, clean
    for quality in QUALITIES:
        yield (
            f"JPEG of quality {quality}",
            lambda look, quality=quality: look.jpeg_quality == quality and look.is_compressed == (quality < 80),
            lambda look: look.jpeg_quality,
            lambda path, index, quality=quality: jpeg(path, quality),
        )
    for quality in CUT_OFF:
        yield (
            f"JPEG of quality {quality}, cut and stored as PNG",
            lambda look: look.is_compressed,
            lambda look: look.blockiness,
            lambda path, index, quality=quality: jpeg(path, quality, is_cut=True),
        )
    for sigma in SIGMAS:
        yield (
            f"noise of sigma {sigma}",
            lambda look, sigma=sigma: look.is_noisy == (sigma >= 15),
            lambda look: look.noise,
            lambda path, index, sigma=sigma: noisy(path, index, sigma),
        )


def clean(path: Path, index: int) -> Iterator:
    """The picture as PNG."""
    yield encoded(opened(path), "PNG")


def jpeg(path: Path, quality: int, *, is_cut: bool = False) -> Iterator:
    """The picture as JPEG; or as PNG without its first rows and columns."""
    from PIL import Image

    stream = io.BytesIO()
    picture = opened(path)
    picture.save(stream, "JPEG", quality=quality)
    again = Image.open(io.BytesIO(stream.getvalue()))
    yield encoded(again.crop((*CUT, *again.size)), "PNG") if is_cut else encoded(picture, "JPEG", quality=quality)


def noisy(path: Path, index: int, sigma: float) -> Iterator:
    """The picture as PNG with Gaussian noise, clipped and rounded."""
    import numpy as np
    from PIL import Image

    values = np.asarray(opened(path)).astype(np.float64)
    values += np.random.default_rng(index).normal(0, sigma, values.shape)
    yield encoded(Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)), "PNG")


def opened(path: Path):
    """The picture in 8 bits, grey or RGB."""
    from PIL import Image

    picture = Image.open(path)
    return picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")


def encoded(picture, format: str, **options: int):
    """The picture as a file in memory."""
    from mambair.images.files import EncodedImage

    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return EncodedImage(Path(f"picture.{format.lower()}"), stream.getvalue())


if __name__ == "__main__":
    main()
