"""The segments of a JPEG, as far as they matter before a decoder reads it.

Source: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re

_START_OF_SCAN, _END = b"\xda", b"\xd9"
# segments that a decoder of pixels does without: all of applications but JFIF and Adobe, and comments
_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # no byte of a scan, and no restart; the first of fill bytes, too
_FILL = re.compile(rb"\xff+")
_MOST_FILL = 2**16  # bytes between two segments; encoders write none or one
_FEW_SEGMENTS, _SMALL_SEGMENT = 10_000, 1024  # the first in any file; further ones of so many bytes on average
_MOST_SCANS = 100  # mozjpeg writes up to about 20
_MOST_WORK = 2**31  # scans times pixels, beyond ``_MOST_SCANS``


def count_scans(data: bytes) -> int:
    """Count the scans of the first picture; damage ends the count.

    Raises:
        OSError: there are more segments or fill bytes than any encoder writes, each of which costs a decoder time.
    """
    place, scans, most = 2, 0, _FEW_SEGMENTS + len(data) // _SMALL_SEGMENT
    while (found := _MARKER.search(data, place)) is not None:
        if scans == 0 and found.start() != place:  # no segment begins where one should
            break
        if (most := most - 1) < 0:
            raise OSError("it has more segments than a JPEG of its size needs")
        fill = _FILL.match(data, found.start())
        assert fill is not None
        if fill.end() - fill.start() > _MOST_FILL:
            raise OSError(f"it has more than {_MOST_FILL} fill bytes in a row")
        place, marker = fill.end() + 1, data[fill.end() : fill.end() + 1]
        if marker in (b"", _END):
            break
        if marker != b"\0":
            scans += marker == _START_OF_SCAN
            place += max(int.from_bytes(data[place : place + 2], "big"), 2)
    return scans


def check_scans(scans: int, width: int, height: int) -> None:
    """Refuse a small file that takes hours: each scan of a progressive picture goes over all of its pixels.

    Raises:
        OSError: there are too many.
    """
    if scans > _MOST_SCANS and scans * width * height > _MOST_WORK:
        raise OSError(
            f"it has {scans} scans of {width}x{height} pixels; at most {_MOST_SCANS} are decoded at this size"
        )


def without_metadata(data: bytes) -> bytes:
    """The segments that the pixels need."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1 : place + 2] != _START_OF_SCAN:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] not in _METADATA:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
