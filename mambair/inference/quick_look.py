"""A quick look at a picture: traces of JPEG compression, noise, size; and the task that suits what is seen.

Blocks: steps between neighbouring pixels are compared at and beside the borders of an 8 x 8 grid, whose place is not
known where a picture was cut after it was compressed. Noise: the estimator of Chen, Zhu and Heng, "An Efficient
Statistical Method for Image Noise Level Estimation", ICCV 2015: the smallest eigenvalues of the covariance of patches
are those of the noise, and they are the ones whose mean is their median.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mambair.images.files import EncodedImage

LARGEST = 768  # pixels a side that are looked at, of the middle
NOISY = 12.0  # noise, in grey levels of 255, from which on a picture is denoised
COMPRESSED = 80  # quality of JPEG below which its traces are seen when a picture is enlarged
BLOCKY = 1.25  # steps at borders of blocks over those beside them, from which on there are traces
_BLOCK = 8
_PATCH = 7
_SAMPLES = 20_000
_FLAT = 1e-3  # added to steps, as flat pictures have none
_DRAWN = 0.5  # share of pixels like their neighbours, beyond which a picture is drawn, or of a screen, and has no noise
_SATURATED = 0.02  # patches with pixels this near to black or white hold less noise than there was


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        height, width: in pixels.
        jpeg_quality: that a JPEG file was saved with; None for other files.
        blockiness: mean step at borders of 8 x 8 blocks over that beside them; about 1 without blocks.
        noise: standard deviation of the noise, in grey levels of 255.
    """

    height: int
    width: int
    jpeg_quality: int | None
    blockiness: float
    noise: float

    @property
    def is_noisy(self) -> bool:
        """Whether noise is seen without looking for it."""
        return self.noise >= NOISY

    @property
    def is_compressed(self) -> bool:
        """Whether traces of JPEG are seen when the picture is enlarged."""
        return self.blockiness >= BLOCKY or (self.jpeg_quality is not None and self.jpeg_quality < COMPRESSED)

    def __str__(self) -> str:
        """As one says it: ``600 x 400 pixels, JPEG of quality 75, blocks, noise about 3 of 255``."""
        quality = [] if self.jpeg_quality is None else [f"JPEG of quality {self.jpeg_quality}"]
        blocks = ["blocks of 8 x 8"] if self.blockiness >= BLOCKY else []
        parts = [f"{self.width} x {self.height} pixels", *quality, *blocks, f"noise about {self.noise:.0f} of 255"]
        return ", ".join(parts)


def look_at(encoded: EncodedImage) -> Look:
    """Decode a picture and look at its middle.

    Raises:
        ImageFileError: it cannot be decoded.
    """
    image = encoded.decoded()
    height, width = image.pixels.shape[:2]
    white = 1.0 if image.pixels.dtype.kind == "f" else float(np.iinfo(image.pixels.dtype).max)
    top, left = max(0, (height - LARGEST) // 2), max(0, (width - LARGEST) // 2)
    middle = image.pixels[top : top + LARGEST, left : left + LARGEST].astype(np.float32) / white
    grey = middle.mean(axis=2)
    # channel by channel: what JPEG did to the colours would hide the noise of the brightness
    noise = np.mean([noise_level(channel) for channel in np.moveaxis(middle, 2, 0)])
    return Look(height, width, encoded.jpeg_quality(), blockiness(grey), float(noise) * 255)


def task_for(look: Look, tasks: Collection[str]) -> str:
    """The first of ``tasks`` that suits a picture.

    Args:
        look: at the picture.
        tasks: those there are networks for; "sr" is one.
    """
    wanted = ["photo"] if look.is_noisy or look.is_compressed else []
    if look.is_noisy:
        wanted.append("denoise")
    elif look.is_compressed:
        wanted.append("jpeg")
    return next((task for task in wanted if task in tasks), "sr")


def blockiness(grey: NDArray[np.floating]) -> float:
    """Mean step at the borders of blocks over the mean of the others, the smaller of rows and columns.

    Args:
        grey: [H, W]; sides below 24 pixels say nothing, and give 1.
    """
    if min(grey.shape) < 3 * _BLOCK:
        return 1.0
    return min(_steps_at_borders(np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)) for axis in (0, 1))


def _steps_at_borders(steps: NDArray[np.floating]) -> float:
    """The largest ratio over all eight places of the grid, of steps [N] from each row (or column) to the next."""
    return max(_ratio(steps, place) for place in range(_BLOCK))


def _ratio(steps: NDArray[np.floating], place: int) -> float:
    at = steps[place::_BLOCK]
    others = np.delete(steps, np.arange(place, len(steps), _BLOCK))
    return float((np.median(at) + _FLAT) / (np.median(others) + _FLAT))


def _equal_neighbours(grey: NDArray[np.floating]) -> float:
    """The share of pixels that equal those above and to the left; noise leaves few, even where it is clipped."""
    return float(((grey[1:, 1:] == grey[:-1, 1:]) & (grey[1:, 1:] == grey[1:, :-1])).mean())


def noise_level(grey: NDArray[np.floating]) -> float:
    """The standard deviation of Gaussian noise.

    Args:
        grey: [H, W], white being 1; sides below the patch of 7 pixels, and drawn pictures, give 0.
    """
    if min(grey.shape) < _PATCH or _equal_neighbours(grey) > _DRAWN:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(grey, (_PATCH, _PATCH))
    step = max(1, int(np.sqrt(windows.shape[0] * windows.shape[1] / _SAMPLES)))
    patches = windows[::step, ::step].reshape(-1, _PATCH * _PATCH)
    within = (patches > _SATURATED).all(axis=1) & (patches < 1 - _SATURATED).all(axis=1)
    if within.sum() > 4 * patches.shape[1]:
        patches = patches[within]
    if len(patches) < 2:
        return 0.0
    values = np.linalg.eigvalsh(np.cov(patches.astype(np.float64), rowvar=False))  # ascending
    for count in range(len(values), 0, -1):
        kept = values[:count]
        if kept.mean() <= np.median(kept):
            return float(np.sqrt(max(kept.mean(), 0.0)))
    return float(np.sqrt(max(values[0], 0.0)))
