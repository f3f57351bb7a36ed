"""BMP whose colours lie in bits that masks name, other than the few layouts that Pillow knows."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mambair.images.metadata import Metadata
from mambair.images.opened import Channels, OpenedFile, Request, scaled_to_white
from mambair.images.pillow_files import PARTIAL, opened_by_pillow
from mambair.images.reasons import DECODING_FAULTS, TruncatedError, UnsupportedKindError

_FILE_HEADER, _SMALLEST_HEADER, _HEADER_WITH_ALPHA = 14, 40, 56
_MASKED = (3, 6)
_EMBEDDED = {4: "JPEG", 5: "PNG"}


@dataclass(frozen=True)
class _Header:
    header_size: int
    width: int
    height: int
    bits: int
    compression: int
    start: int  # of the pixels
    masks: tuple[int, ...]  # red, green, blue, and alpha if there is one


def opened_bmp(request: Request) -> OpenedFile:
    """Read the header, with Pillow if it knows the layout; see ``decode`` for errors."""
    try:
        return opened_by_pillow(request, "BMP")
    except DECODING_FAULTS:
        header = _header(request.data)
        if header is None:
            raise
        _refuse_named(header)
        if header.compression not in _MASKED:
            raise
    height = abs(header.height)
    request.check_size(header.width, height)
    mode = f"{header.bits} bits, masks {' '.join(f'{mask:X}' for mask in header.masks)}"
    return OpenedFile("BMP", mode, header.width, height, Metadata(), lambda: _channels(request, header))


def _header(data: bytes) -> _Header | None:
    """The header of a BMP of version 3 or later."""
    if len(data) < _FILE_HEADER + _SMALLEST_HEADER:
        return None
    start, size, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    if size < _SMALLEST_HEADER or width <= 0 or height == 0:
        return None
    has_alpha = size >= _HEADER_WITH_ALPHA or compression == _MASKED[1]
    masks = struct.unpack("<4I", data[54:70].ljust(16, b"\0"))[: 4 if has_alpha else 3]
    return _Header(size, width, height, bits, compression, start, masks if any(masks[3:]) else masks[:3])


def _refuse_named(header: _Header) -> None:
    if header.bits == 0 and header.compression in _EMBEDDED:
        kind = f"BMP that holds a {_EMBEDDED[header.compression]}"
    elif header.compression == 3 and header.bits == 1:
        kind = "BMP of OS/2 with Huffman codes"
    elif header.compression == 4 and header.bits == 24:
        kind = "BMP of OS/2 with run lengths of 24 bits"
    elif header.bits not in (1, 4, 8, 16, 24, 32):
        kind = f"BMP of {header.bits} bits per pixel"
    elif header.compression in _MASKED and (header.bits not in (16, 32) or not all(map(_is_run, header.masks))):
        kind = f"BMP of {header.bits} bits with masks {' '.join(f'{mask:X}' for mask in header.masks)}"
    else:
        return
    raise UnsupportedKindError(f"is of an unsupported kind: {kind}")


def _is_run(mask: int) -> bool:
    """Return whether the bits of a mask stand side by side; none do, too."""
    return mask == 0 or (mask // (mask & -mask) + 1).bit_count() == 1


def _channels(request: Request, header: _Header) -> Channels:
    height, size = abs(header.height), header.bits // 8
    stride = (header.width * size + 3) // 4 * 4
    content = request.data[header.start : header.start + stride * height]
    if len(content) < stride * height:
        if not request.allow_truncated or len(content) < stride:
            raise TruncatedError(f"it holds {len(content)} bytes of pixels of {stride * height}")
        request.notes.append(PARTIAL)
        content = content.ljust(stride * height, b"\0")
    rows = np.frombuffer(content, f"<u{size}").reshape(height, stride // size)[:, : header.width]
    if header.height > 0:  # from the bottom up
        rows = rows[::-1]
    largest = 255 if max(map(_white, header.masks)) <= 255 else 65535
    planes = [_plane(rows, mask, largest) for mask in header.masks]
    return np.stack(planes[:3], axis=2), planes[3] if len(planes) == 4 else None


def _white(mask: int) -> int:
    return mask // (mask & -mask) if mask else 0


def _plane(rows: NDArray[np.generic], mask: int, largest: int) -> NDArray[np.generic]:
    if not mask:
        return scaled_to_white(np.zeros_like(rows), largest, largest)
    return scaled_to_white((rows & mask) // (mask & -mask), _white(mask), largest)
