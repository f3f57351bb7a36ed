"""The first rows of a PNG without decoding the rest: what a random patch of a large image needs.

Rows are compressed and filtered from top to bottom, so a header that promises fewer rows makes any decoder stop there.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mambair.images.chatter import pillow_settings
from mambair.images.png import SIGNATURE, chunks, with_rows

_HEADER_END = 33
# chunks that change no pixel of a grey or RGB image
_HARMLESS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tIME", b"sBIT", b"bKGD")
)


def first_rows(data: bytes, rows: int) -> NDArray[np.uint8] | None:
    """The first ``rows`` rows [rows, W, 1 or 3] of a plain PNG; None for any other file, which must be decoded whole.

    Plain is: 8 bits, grey or RGB, not interlaced, no transparency, no text or EXIF (which may ask for a rotation), and
    complete to its last chunk. The compressed data behind the rows is not looked at.

    Raises:
        OSError, SyntaxError, ValueError: the compressed data is damaged.
    """
    if not data.startswith(SIGNATURE) or len(data) < _HEADER_END:
        return None
    height, depth, colour, interlace = int.from_bytes(data[20:24], "big"), data[24], data[25], data[28]
    if depth != 8 or colour not in (0, 2) or interlace or not 0 < rows <= height or not _is_harmless(data):
        return None
    with pillow_settings():
        picture = Image.open(io.BytesIO(with_rows(data, rows)), formats=("PNG",))
    pixels = np.array(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _is_harmless(data: bytes) -> bool:
    kinds = [chunk.kind for chunk in chunks(data)]
    return kinds[-1:] == [b"IEND"] and _HARMLESS.issuperset(kinds)
