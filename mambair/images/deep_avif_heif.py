"""AVIF and HEIF of 10 and 12 bits, of which Pillow gives 8: read at their depth where another library can."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from mambair.images.opened import Channels, scaled_to_white
from mambair.images.reasons import DECODING_FAULTS

_TOLERANCE = 2.0  # of 255: the decoders round the conversion to RGB in their own ways


def deep_channels(data: bytes, format: str, bits: int, read: Channels) -> Channels | None:
    """The pixels at their depth, as uint16.

    Args:
        data: the content of the file.
        format: "AVIF" or "HEIF".
        bits: of a channel, 9 to 16.
        read: what Pillow gives, of 8 bits.

    Returns:
        None where the library (imagecodecs, pillow-heif) reads nothing, or others pixels than Pillow does.
    """
    try:
        values = _avif(data) if format == "AVIF" else _heif(data, bits)
    except (*DECODING_FAULTS, ImportError):  # Pillow's reading is there
        return None
    values = values[:, :, None] if values.ndim == 2 else values
    pixels, alpha = read
    count = pixels.shape[2] + (alpha is not None)
    if values.dtype != np.uint16 or values.shape != (*pixels.shape[:2], count):
        return None
    deep = scaled_to_white(values, 2**bits - 1, 65535)
    colours = deep[:, :, : pixels.shape[2]]
    if not _is_close(colours, pixels) or (alpha is not None and not _is_close(deep[:, :, -1], alpha)):
        return None
    return np.ascontiguousarray(colours), None if alpha is None else np.ascontiguousarray(deep[:, :, -1])


def _avif(data: bytes) -> NDArray[np.generic]:
    import imagecodecs

    return imagecodecs.avif_decode(data, index=0)


def _heif(data: bytes, bits: int) -> NDArray[np.generic]:
    import pillow_heif

    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    return np.asarray(file) >> (16 - bits)  # they fill the upper bits


def _is_close(deep: NDArray[np.generic], read: NDArray[np.generic]) -> bool:
    white = 255 if read.dtype == np.uint8 else 65535
    difference = np.abs(deep.astype(np.float32) / 257 - read.astype(np.float32) * (255 / white))
    return bool(difference.max() <= _TOLERANCE)
