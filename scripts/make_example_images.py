"""Make the example images in ``datasets/example`` again, from pictures that come with scikit-image.

python scripts/make_example_images.py            # writes datasets/example
python scripts/make_example_images.py --check    # compares, pixel by pixel, and writes nothing
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCALE = 4

# name: (function of skimage.data, first row, first column, height, width); the two tables never overlap
TRAINING = {
    "astronaut_patch": ("astronaut", 288, 80, 192, 192),
    "astronaut_shuttle": ("astronaut", 40, 352, 192, 160),
    "astronaut_helmet": ("astronaut", 320, 320, 192, 192),
    "coffee_spoon": ("coffee", 224, 220, 176, 192),
    "coffee_table": ("coffee", 0, 408, 192, 192),
    "chelsea_right_eye": ("chelsea", 20, 275, 176, 176),
    "rocket_tower": ("rocket", 200, 0, 192, 192),
    "retina_vessels": ("retina", 560, 150, 192, 192),
}
VALIDATION = {
    "astronaut": ("astronaut", 0, 96, 256, 256),
    "chelsea": ("chelsea", 20, 80, 192, 192),
    "coffee": ("coffee", 0, 150, 224, 256),
    "rocket": ("rocket", 171, 230, 256, 192),
}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "datasets" / "example", help="folder to write to")
    parser.add_argument("--check", action="store_true", help="only compare with the files that are there")
    options = parser.parse_args(arguments)
    return make(options.out, check=options.check)


def make(folder: Path, *, check: bool) -> int:
    """Write, or compare, every example image below ``folder``; returns 1 if a comparison failed."""
    sys.path[:0] = [] if str(REPOSITORY) in sys.path else [str(REPOSITORY)]
    import numpy as np
    from skimage import data

    from mambair.images.files import DecodedImage, read_image, write_image
    from mambair.images.resize import imresize

    images = {}
    for subfolder, table in (("gt", TRAINING), ("val_gt", VALIDATION)):
        for name, (source, top, left, height, width) in table.items():
            picture = getattr(data, source)()[top : top + height, left : left + width]
            images[f"{subfolder}/{name}.png"] = picture
            if subfolder == "val_gt":
                images[f"lr_x{SCALE}/{name}.png"] = imresize(picture, 1 / SCALE)
    different = 0
    for name, pixels in images.items():
        if not check:
            write_image(folder / name, DecodedImage(np.ascontiguousarray(pixels)))
        elif not np.array_equal(read_image(folder / name).pixels, pixels):
            print(f"{folder / name}: differs from what scikit-image gives")
            different += 1
    print(f"{len(images)} images {'compared' if check else 'written'}, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
