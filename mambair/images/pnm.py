"""PPM of more than 8 bits, which Pillow would reduce."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from mambair.images.metadata import Metadata
from mambair.images.opened import Channels, OpenedFile, Request, scaled_to_white
from mambair.images.pillow_files import PARTIAL, opened_by_pillow
from mambair.images.reasons import TruncatedError

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P([36])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s")
_NUMBER = _GAP + rb"\d{1,9}"
_ANY_HEADER = re.compile(rb"P([14]|[2356](?=" + _NUMBER * 3 + rb"\s))" + _NUMBER * 2 + rb"\s")
_HEADER_BYTES = 2**16
_COMMENT = re.compile(rb"#[^\n]*")


def opened_pnm(request: Request) -> OpenedFile:
    """Read the header, with Pillow unless it is colour of more than 8 bits; see ``decode`` for errors."""
    start = request.data[:_HEADER_BYTES]
    if len(request.data) > len(start) and _ANY_HEADER.match(start) is None:
        raise OSError(f"its header is damaged, or longer than {_HEADER_BYTES} bytes")
    header = _HEADER.match(start)
    if header is None or not 255 < int(header[4]) < 65536:
        return opened_by_pillow(request, "PPM")
    width, height, white = (int(number) for number in header.groups()[1:])
    if not width or not height:
        raise OSError("its header gives no size")
    request.check_size(width, height)
    is_text, start = header[1] == b"3", header.end()

    def channels() -> Channels:
        count = width * height * 3
        values = _numbers(request.data[start:], count) if is_text else _words(request.data, start, count)
        if len(values) < count:
            if not request.allow_truncated or not len(values):
                raise TruncatedError(f"it holds {len(values)} of {count} numbers")
            request.notes.append(PARTIAL)
            values = np.concatenate([values, np.zeros(count - len(values), np.uint16)])
        return scaled_to_white(values, white, 65535).reshape(height, width, 3), None

    return OpenedFile("PPM", "RGB;16", width, height, Metadata(), channels)


def _words(data: bytes, start: int, most: int) -> NDArray[np.generic]:
    return np.frombuffer(data, ">u2", count=min((len(data) - start) // 2, most), offset=start)


def _numbers(text: bytes, most: int) -> NDArray[np.generic]:
    """Numbers in decimal digits."""
    parts = _COMMENT.sub(b"", text).split(maxsplit=most)[:most]
    if not all(part.isdigit() and len(part) < 6 for part in parts):
        raise OSError("it holds something else than numbers")
    return np.array([int(part) for part in parts], dtype=np.uint32)
