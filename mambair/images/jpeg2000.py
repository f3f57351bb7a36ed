"""JPEG 2000 of more than 8 bits through OpenJPEG (imagecodecs): Pillow shows its white as black."""

from __future__ import annotations

import struct

import numpy as np

from mambair.images.opened import Channels, OpenedFile, Request, scaled_to_white
from mambair.images.pillow_files import opened_by_pillow
from mambair.images.reasons import UnsupportedKindError

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # begins a code stream
_ENUMERATED, _YCC = 1, 18  # ways to name a colour space


def opened_jpeg2000(request: Request) -> OpenedFile:
    """Read the header; see ``decode`` for errors."""
    opened = opened_by_pillow(request, "JPEG2000")
    depths = _depths(request.data)
    if max(depths, default=8) <= 8:
        return opened
    mode = {"I;16": "L"}.get(opened.mode, opened.mode)
    if len(set(depths)) > 1 or len(depths) != len(mode) or mode not in ("L", "LA", "RGB", "RGBA") or _is_ycc(request):
        raise UnsupportedKindError(
            f"is of an unsupported kind: JPEG 2000 with components of {' '.join(map(str, depths))} bits, read as {mode}"
        )

    def channels() -> Channels:
        import imagecodecs

        values = imagecodecs.jpeg2k_decode(request.data).reshape(opened.height, opened.width, len(depths))
        if values.dtype != np.uint16:
            raise UnsupportedKindError(f"is of an unsupported kind: JPEG 2000 of {values.dtype}")
        scaled = scaled_to_white(values, 2 ** depths[0] - 1)
        if not mode.endswith("A"):
            return scaled, None
        return np.ascontiguousarray(scaled[:, :, :-1]), np.ascontiguousarray(scaled[:, :, -1])

    wide = f"{mode};{depths[0]}"
    return OpenedFile(opened.format, wide, opened.width, opened.height, opened.metadata, channels)


def _depths(data: bytes) -> list[int]:
    """Bits of each component."""
    place = data.find(_SIZE_MARKER)
    if place < 0 or len(data) < place + 42:
        return []
    (count,) = struct.unpack_from(">H", data, place + 40)
    return [(depth & 0x7F) + 1 for depth in data[place + 42 : place + 42 + 3 * count : 3]]


def _is_ycc(request: Request) -> bool:
    """Return whether the header declares the colours as luma and chroma."""
    place = request.data.find(b"colr", 0, max(request.data.find(_SIZE_MARKER), 0))
    described = request.data[place + 4 : place + 11] if place >= 0 else b""
    return described[:1] == bytes([_ENUMERATED]) and int.from_bytes(described[3:], "big") == _YCC
