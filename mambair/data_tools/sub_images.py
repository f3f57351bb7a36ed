"""Large images cut into overlapping squares, which training reads faster; pairs are cut at the same places.

The grid is that of BasicSR's ``extract_subimages``: a square every ``step`` pixels, and one at the far edge where more
than ``threshold`` pixels would be left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mambair.images.files import DecodedImage, ImageFileError, read_image, read_size, write_image

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Grid:
    """Squares of ``size`` pixels every ``step`` pixels of the ground truth.

    Raises:
        ValueError: a number that is not positive, or a scale that does not divide size and step.
    """

    size: int = 480
    step: int = 240
    threshold: int = 0
    scale: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 1 or self.threshold < 0 or self.scale < 1:
            raise ValueError(f"size, step and scale must be positive and threshold not negative, got {self}")
        if self.size % self.scale or self.step % self.scale:
            raise ValueError(f"size {self.size} and step {self.step} must be multiples of the scale {self.scale}")

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top left corners of the squares of an image, row by row; all are multiples of the scale.

        Raises:
            ValueError: the image is smaller than a square.
        """
        if min(height, width) < self.size:
            raise ValueError(f"{height} x {width} pixels are too few for sub-images of {self.size}")
        return [(top, left) for top in self._starts(height) for left in self._starts(width)]

    def _starts(self, length: int) -> list[int]:
        length -= length % self.scale
        starts = list(range(0, length - self.size + 1, self.step))
        if length - (starts[-1] + self.size) > self.threshold:
            starts.append(length - self.size)
        return starts


@dataclass(frozen=True)
class CutJob:
    """One image, with its low-quality partner if there is one, and where its sub-images go.

    Attributes:
        source: the ground truth.
        folder: of its sub-images, ``<stem>_s001.png`` and so on.
        grid: where to cut.
        partner: the low-quality image.
        partner_folder: of its sub-images.
        filename_tmpl: name of a low-quality sub-image, ``{}`` being that of its ground truth.
        verify: compare sub-images that are there already pixel by pixel instead of by their size.
    """

    source: Path
    folder: Path
    grid: Grid
    partner: Path | None = None
    partner_folder: Path | None = None
    filename_tmpl: str = "{}"
    verify: bool = False


def cut(job: CutJob) -> bool:
    """Cut one image, and read back what was written. Returns whether anything had to be made.

    Raises:
        ImageFileError: an image cannot be read or written.
        ValueError: it is too small, or the sizes of the pair do not fit.
    """
    height, width = read_size(job.source)
    names = [f"{job.source.stem}_s{index:03d}" for index in range(1, len(job.grid.corners(height, width)) + 1)]
    targets = [job.folder / f"{name}.png" for name in names]
    made = _cut_one(job.source, targets, job.grid, 1, job.verify)
    if job.partner is not None and job.partner_folder is not None:
        scale = job.grid.scale
        low_height, low_width = read_size(job.partner)
        if (low_height, low_width) != (height // scale, width // scale):
            raise ValueError(
                f"{job.source}: {height} x {width} pixels do not fit {job.partner} with {low_height} x {low_width} at "
                f"scale {scale}"
            )
        targets = [job.partner_folder / f"{job.filename_tmpl.format(name)}.png" for name in names]
        made |= _cut_one(job.partner, targets, job.grid, scale, job.verify)
    return made


def _cut_one(source: Path, targets: Sequence[Path], grid: Grid, scale: int, verify: bool) -> bool:
    """Cut at the corners of the ground truth divided by ``scale``."""
    side = grid.size // scale
    if not verify and all(_has_size(target, side) for target in targets):
        return False
    pixels = read_image(source).pixels
    corners = grid.corners(pixels.shape[0] * scale, pixels.shape[1] * scale)
    made = False
    for target, (top, left) in zip(targets, corners, strict=True):
        square = pixels[top // scale : top // scale + side, left // scale : left // scale + side]
        if not (_has_size(target, side) and (not verify or same_pixels(target, square))):
            write_verified(target, square)
            made = True
    return made


def _has_size(path: Path, side: int) -> bool:
    if not path.is_file():
        return False
    try:
        return read_size(path) == (side, side)
    except ImageFileError:
        return False


def same_pixels(path: Path, pixels: Pixels) -> bool:
    """Whether a file can be read and holds exactly these pixels."""
    try:
        found = read_image(path).pixels
    except ImageFileError:
        return False
    return found.dtype == pixels.dtype and np.array_equal(found, pixels)


def write_verified(path: Path, pixels: Pixels) -> None:
    """Write an image and read it back.

    Raises:
        ImageFileError: it cannot be written, or what is read is not what was written.
    """
    write_image(path, DecodedImage(np.ascontiguousarray(pixels)))
    if not same_pixels(path, pixels):
        raise ImageFileError(f"{path}: what was written cannot be read back unchanged; is the disk failing?")
