"""A file whose header has been read: what ``read_size`` and ``read_image`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mambair.images.metadata import Metadata
from mambair.images.reasons import TooManyPixelsError, UnsupportedKindError

SEVERAL = "it holds several pictures, of which the first was read"
# pixels [H, W, 1 or 3] and alpha [H, W]
Channels: TypeAlias = tuple[NDArray[np.generic], NDArray[np.generic] | None]


@dataclass(frozen=True)
class Request:
    """A file to decode, and the caller's conditions.

    Attributes:
        data: the content of the file.
        suffix: its ending in lower case, with its dot.
        max_pixels: larger pictures are refused.
        allow_truncated: give what there is of a damaged picture.
        notes: filled with what was dropped or changed.
    """

    data: bytes
    suffix: str
    max_pixels: int
    allow_truncated: bool
    notes: list[str] = field(default_factory=list)

    def check_size(self, width: int, height: int) -> None:
        """Refuse a size before anything is decoded.

        Raises:
            TooManyPixelsError: it is above the limit.
        """
        if width * height > self.max_pixels:
            raise TooManyPixelsError(f"{width} x {height} pixels are more than the limit of {self.max_pixels}")


@dataclass(frozen=True)
class OpenedFile:
    """The header of a picture, and how to decode the rest.

    Attributes:
        format, mode: as ``DecodedImage.source_format`` and ``source_mode``.
        width, height: as stored, before the orientation is applied.
        metadata: of the picture; its orientation is still to be applied to what ``channels`` gives.
        channels: decodes the pixels.
    """

    format: str
    mode: str
    width: int
    height: int
    metadata: Metadata
    channels: Callable[[], Channels]


def scaled_to_white(values: NDArray[np.generic], white: int, largest: int | None = None) -> NDArray[np.generic]:
    """Integers from 0 to ``white`` as uint8 or uint16 from 0 to 255 or 65535, rounded.

    Args:
        values: unsigned integers.
        white: their number for white.
        largest: 255 or 65535; None takes the smaller one that loses nothing.
    """
    largest = largest or (255 if white <= 255 else 65535)
    dtype = np.uint8 if largest == 255 else np.uint16
    if white == largest:
        return values.astype(dtype, copy=False)
    wide = values.astype(np.uint64)
    return np.minimum((wide * (2 * largest) + white) // (2 * white), largest).astype(dtype)


def as_uint16(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Integers of other types as uint16, if they fit.

    Raises:
        UnsupportedKindError: they do not.
    """
    if values.min() < 0 or values.max() > 65535:
        raise UnsupportedKindError(
            f"is of an unsupported kind: it holds {values.dtype.name} from {values.min()} to {values.max()}; "
            "8 and 16 bits without a sign, and floats, are read"
        )
    return values.astype(np.uint16)
