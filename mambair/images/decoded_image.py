"""What an image file holds, once decoded, and the error for one that cannot be read or written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DTYPES = ("uint8", "uint16", "float32")


class ImageFileError(ValueError):
    """An image file cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True)
class DecodedImage:
    """Pixels of one picture with what else its file says of them.

    Attributes:
        pixels: [H, W, C] with C = 1 (grey) or 3 (RGB); uint8, uint16 (0 to 65535) or float32 (1 is white, as a rule).
        alpha: opacity [H, W] of the same dtype, or None.
        icc_profile: the colour profile that describes ``pixels``, or None.
        exif: EXIF data, beginning with the TIFF header; its orientation is 1. None if there is none.
        xmp: XMP packet, or None.
        dpi: pixels per inch (across, down) for printing, or None.
        source_format: "PNG", "JPEG", ...; empty if it comes from no file.
        source_mode: what the file held before anything was converted ("P", "CMYK", ...), in Pillow's names.
        notes: what reading it dropped or changed, a line each: damaged metadata, missing pixels, messages of decoders.

    Raises:
        ValueError: a shape or dtype other than these.
    """

    pixels: NDArray[np.generic]
    alpha: NDArray[np.generic] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    source_format: str = ""
    source_mode: str = ""
    notes: tuple[str, ...] = ()
    dpi: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
            raise ValueError(f"pixels: must be a non-empty [H, W, 1] or [H, W, 3], got shape {shape}")
        if dtype.name not in DTYPES:
            raise ValueError(f"pixels: dtype must be one of {', '.join(DTYPES)}, got {dtype}")
        if self.alpha is not None and (self.alpha.shape != shape[:2] or self.alpha.dtype != dtype):
            raise ValueError(
                f"alpha: must be {dtype} of shape {shape[:2]} as the pixels are, "
                f"got {self.alpha.dtype} of shape {self.alpha.shape}"
            )

    @property
    def mode(self) -> str:
        """``L``, ``LA``, ``RGB`` or ``RGBA``."""
        return ("L" if self.pixels.shape[2] == 1 else "RGB") + ("" if self.alpha is None else "A")

    def interleaved(self) -> NDArray[np.generic]:
        """Pixels and alpha as one contiguous array [H, W, 1 to 4], in the order of ``mode``."""
        parts = [self.pixels] if self.alpha is None else [self.pixels, self.alpha[:, :, None]]
        return np.ascontiguousarray(np.concatenate(parts, axis=2))

    def rgb(self) -> NDArray[np.generic]:
        """Pixels as [H, W, 3], grey repeated; alpha is left out."""
        return self.pixels if self.pixels.shape[2] == 3 else np.repeat(self.pixels, 3, axis=2)
