"""Fit the parameters of NIQE on pristine photographs, and write them to ``mambair/metrics/niqe.safetensors``.

    python scripts/fit_niqe.py FOLDER --leave-out "clip_*" "line_*" "text_*" "plasma_*" --images "418 images ..."

Mittal et al. (2013): of each image only the blocks count whose sharpness is above 0.75 of the image's sharpest. The
shipped file was fitted on 354 photographs under free licences (CC0, CC BY, CC BY-SA, Unsplash, Pexels, Pixabay, public
domain), reduced by 1.5 or more before, most of them windows of 512 x 512 pixels; drawings and text were left out. The
file holds the mean [36] and the covariance [36, 36] of their features, float64, and nothing of the images.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

from mambair.images.files import list_images, read_image  # noqa: E402
from mambair.metrics.image_pairs import luma  # noqa: E402
from mambair.metrics.niqe import PARAMETERS, block_features, gaussian_of  # noqa: E402
from mambair.system.atomic_file import atomic_path  # noqa: E402
from mambair.system.console import progress_bar, say  # noqa: E402

SHARP = 0.75


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit the parameters of NIQE on pristine photographs.")
    parser.add_argument("folder", type=Path, help="colour photographs, free of noise and compression")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="PATTERN", help="names that do not count")
    parser.add_argument("--about", default="", help="what the images are, written into the file")
    parser.add_argument("--output", type=Path, default=PARAMETERS)
    options = parser.parse_args(arguments)
    paths = [
        path
        for path in list_images(options.folder)
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in options.leave_out)
    ]
    features = []
    with progress_bar(len(paths), description="images", unit="image", quiet=False) as bar:
        for path in paths:
            features.append(sharp_features(path))
            bar.update()
    kept = np.concatenate(features)
    mean, covariance = gaussian_of(kept)
    about = {"images": str(len(paths)), "blocks": str(len(kept)), "about": options.about}
    with atomic_path(options.output) as temporary:
        save_file({"mean": mean, "covariance": covariance}, temporary, metadata=about)
    say(f"{options.output}: {len(kept)} blocks of {len(paths)} images")


def sharp_features(path: Path) -> np.ndarray:
    """Features [N, 36] of the sharp blocks of a photograph."""
    pixels = read_image(path).pixels
    features, sharpness = block_features(np.round(luma(pixels[:, :, 2::-1].transpose(2, 0, 1), 255).astype(np.float64)))
    return features[sharpness > SHARP * sharpness.max()]


if __name__ == "__main__":
    main()
