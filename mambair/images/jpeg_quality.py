"""The quality that a JPEG was saved with, read from its quantisation tables."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mambair.images.reasons import DECODING_FAULTS

# of luminance: ITU-T T.81, table K.1, as the rows of the file's own order after Pillow has undone the zigzag
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)


def jpeg_quality(data: bytes) -> int | None:
    """The quality, 1 to 100 in libjpeg's scale, whose luminance table is nearest to that of a file; None: no JPEG."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            tables = getattr(picture, "quantization", None)
    except DECODING_FAULTS:
        return None
    if not tables or len(tables[min(tables)]) != 64:
        return None
    table = np.array(tables[min(tables)])
    return min(range(1, 101), key=lambda quality: float(np.abs(np.log(scaled(quality) / table)).sum()))


def scaled(quality: int) -> np.ndarray:
    """The luminance table that libjpeg makes of a quality, 64 numbers."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * percent + 50) // 100, 1, 255)
