"""One image of a data set, of which a patch can be had without decoding the rest, in the channels asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mambair.images.files import EncodedImage

Pixels = NDArray[np.generic]


class LazyImage:
    """An image whose pixels [H, W, C] are known, or decoded as far as they are asked for.

    Attributes:
        height, width: in pixels.
        channels: 3 or 1.

    Args:
        image: pixels, which are taken as they are, or the content of an image file.
        color: channels to convert the content of a file to: ``rgb``, ``gray`` or ``y``.

    Raises:
        ImageFileError: the header of the file is damaged.
    """

    def __init__(self, image: EncodedImage | Pixels, color: str = "rgb") -> None:
        self._image = image
        self._color = color
        size = image.size() if isinstance(image, EncodedImage) else image.shape[:2]
        self.height, self.width = int(size[0]), int(size[1])
        self.channels = (3 if color == "rgb" else 1) if isinstance(image, EncodedImage) else int(image.shape[2])

    def whole(self) -> Pixels:
        """All pixels, [H, W, C].

        Raises:
            ImageFileError: the file is damaged.
        """
        if isinstance(self._image, EncodedImage):
            return in_color(self._image.decoded().pixels, self._color)
        return self._image

    def patch(self, top: int, left: int, height: int, width: int) -> Pixels:
        """``whole()[top : top + height, left : left + width]``.

        Raises:
            ImageFileError: the file is damaged, as far as it was read.
        """
        if isinstance(self._image, EncodedImage):
            rows = self._image.rows(min(top + height, self.height))
            return in_color(rows[top : top + height, left : left + width], self._color)
        return self._image[top : top + height, left : left + width]


def in_color(pixels: Pixels, color: str) -> Pixels:
    """[H, W, 1 or 3] as ``rgb``, ``gray`` or ``y``; same dtype, integers rounded.

    ``gray`` is the full-range luma of BT.601 and keeps grey files as they are; ``y`` is its studio-range form, which
    BasicSR's ``color: y`` and the published metrics use.
    """
    if color == "rgb":
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    if color == "gray" and pixels.shape[2] == 1:
        return pixels
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float64)
    if color == "gray":
        luma = colour @ [0.299, 0.587, 0.114]
    else:
        luma = (colour @ [65.481, 128.553, 24.966] + 16 * white) / 255
    luma = luma[:, :, None]
    return (np.floor(luma + 0.5) if pixels.dtype.kind == "u" else luma).astype(pixels.dtype)


def to_float(pixels: Pixels) -> NDArray[np.float32]:
    """[H, W, C] of any image dtype as float32, white being 1."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def to_uint8(pixels: Pixels) -> NDArray[np.uint8]:
    """[H, W, C] of any image dtype in 8 bits, clipped and rounded."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.floor(np.clip(to_float(pixels), 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
