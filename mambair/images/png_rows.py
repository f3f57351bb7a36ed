"""The size and the first rows of a PNG without decoding the rest: what a random patch of a large image needs.

Source: the PNG specification (https://www.w3.org/TR/png-3/): rows are compressed and filtered from top to bottom, so a
header that promises fewer rows makes any decoder stop there.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33
# chunks that change no pixel of a grey or RGB image
_HARMLESS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tIME", b"sBIT", b"bKGD")
)

_COLOURS = frozenset((b"PLTE", b"tRNS", b"hIST"))


def header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a whole PNG that nothing asks to be turned; None for any other file."""
    if not data.startswith(_SIGNATURE) or len(data) < _HEADER_END or not _holds_only(data, _HARMLESS | _COLOURS):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (height, width) if width and height else None


def first_rows(data: bytes, rows: int) -> NDArray[np.uint8] | None:
    """The first ``rows`` rows [rows, W, 1 or 3] of a plain PNG; None for any other file, which must be decoded whole.

    Plain is: 8 bits, grey or RGB, not interlaced, no transparency, no text or EXIF (which may ask for a rotation), and
    complete to its last chunk. The compressed data behind the rows is not looked at.

    Raises:
        OSError, SyntaxError, ValueError: the compressed data is damaged.
    """
    if not data.startswith(_SIGNATURE) or len(data) < _HEADER_END:
        return None
    height, depth, colour, interlace = (*struct.unpack(">I", data[20:24]), data[24], data[25], data[28])
    if depth != 8 or colour not in (0, 2) or interlace or not 0 < rows <= height or not _holds_only(data, _HARMLESS):
        return None
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    shortened = bytearray(data)
    shortened[12:_HEADER_END] = header + struct.pack(">I", zlib.crc32(header))
    pixels = np.array(Image.open(io.BytesIO(shortened), formats=("PNG",)))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _holds_only(data: bytes, kinds: frozenset[bytes]) -> bool:
    """Whether every chunk is one of these, and the last one ends the file."""
    last = b""
    for kind in _chunks(data):
        if kind not in kinds:
            return False
        last = kind
    return last == b"IEND"


def _chunks(data: bytes) -> Iterator[bytes]:
    """The types of the chunks that are there in full."""
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + length > len(data):
            return
        yield data[place + 4 : place + 8]
        place += 12 + length
