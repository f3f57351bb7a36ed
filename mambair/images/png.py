"""PNG: chunks, 16 bits through libpng (imagecodecs), transparent colours, and animations by their default image.

Source: the PNG specification (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mambair.images import metadata
from mambair.images.chatter import pillow_settings
from mambair.images.opened import SEVERAL, Channels, OpenedFile, Request
from mambair.images.pillow_files import PARTIAL, channels_of, high_bytes, open_picture
from mambair.images.reasons import DECODING_FAULTS, DisagreementError, TruncatedError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33
_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_TRIED_KINDS = 20  # kinds of metadata that are left out one at a time
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_COMPARED_ROWS = 16
_FEW_CHUNKS, _SMALL_CHUNK = 10_000, 1024  # the first in any file; further ones of so many bytes on average
# first row and column, and the steps, of the seven pictures of an interlaced one
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True)
class Chunk:
    """A chunk that is there in full; ``start`` to ``end`` is all of it, with length and checksum."""

    kind: bytes
    start: int
    end: int

    @property
    def content(self) -> slice:
        """Where its content is."""
        return slice(self.start + 8, self.end - 4)


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG up to its end or to where it is cut off.

    Raises:
        OSError: there are far more of them than a file of its size needs, each of which costs time.
    """
    place, most = len(SIGNATURE), _FEW_CHUNKS + len(data) // _SMALL_CHUNK
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        if (most := most - 1) < 0:
            raise OSError("it has more chunks than a PNG of its size needs")
        yield Chunk(data[place + 4 : place + 8], place, end)
        if data[place + 4 : place + 8] == b"IEND":
            return
        place = end


@dataclass(frozen=True)
class _Layout:
    """The header of a PNG, and the raw samples of its transparent colour, if it has one."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    transparent: bytes | None

    @property
    def row_bytes(self) -> int:
        return self.packed(self.width)

    def packed(self, width: int) -> int:
        """Bytes of so many pixels of a row."""
        return (width * _SAMPLES[self.colour] * self.depth + 7) // 8


def opened_png(request: Request) -> OpenedFile:
    """Read the header and all metadata, also what stands behind the pixels, without decoding."""
    picture, ordered, transparent = _openable(request.data, request.notes)
    request.check_size(picture.width, picture.height)
    if not request.allow_truncated and _is_cut_off(request.data):
        raise TruncatedError("it ends before its pixels do")
    with pillow_settings():
        described = metadata.of_picture(picture, request.notes)
    depth, colour, interlace = ordered[24], ordered[25], ordered[28]
    layout = _Layout(picture.width, picture.height, depth, colour, bool(interlace), transparent)
    mode = picture.mode if depth < 16 else f"{_MODES[colour]};16"

    def channels() -> Channels:
        try:
            return _channels(ordered, layout)
        except DECODING_FAULTS as error:
            if not request.allow_truncated or isinstance(error, DisagreementError):
                raise
            decoded = _channels(_completed(ordered, layout), layout)
            request.notes.append(PARTIAL)
            return decoded

    return OpenedFile("PNG", mode, picture.width, picture.height, described, channels)


def _channels(ordered: bytes, layout: _Layout) -> Channels:
    if layout.depth == 16:
        pixels, alpha = _wide(ordered, layout)
    else:
        picture = open_picture(ordered, "PNG")
        picture.load()
        if layout.colour in (0, 2):
            picture.info.pop("transparency", None)  # Pillow compares grey of 2 and 4 bits with numbers of another scale
        pixels, alpha = channels_of(picture)
    if alpha is None and layout.transparent is not None and layout.colour in (0, 2):
        alpha = _keyed(pixels, layout)
    return pixels, alpha


def _openable(data: bytes, notes: list[str]) -> tuple[Image.Image, bytes, bytes | None]:
    """The opened picture, and what `_ordered` gives, without the kind of metadata that Pillow refuses, or any."""
    ordered, transparent = _ordered(data, notes)
    try:
        picture = open_picture(ordered, "PNG")
    except DECODING_FAULTS as error:
        kinds = sorted({chunk.kind for chunk in chunks(data) if chunk.kind[0] & 0x20} - {b"tRNS"})
        for dropped in [*({kind} for kind in kinds[:_TRIED_KINDS]), set(kinds)]:
            ordered, transparent = _ordered(data, [], dropped)
            with contextlib.suppress(*DECODING_FAULTS):
                picture = open_picture(ordered, "PNG")
                notes.append(f"damaged metadata was dropped ({' '.join(str(error).split())})")
                return picture, ordered, transparent
        raise
    if not picture.info.get("icc_profile") and any(chunk.kind == b"iCCP" for chunk in chunks(ordered)):
        notes.append("a damaged colour profile was dropped")
    return picture, ordered, transparent


def _ordered(data: bytes, notes: list[str], dropped: Collection[bytes] = ()) -> tuple[bytes, bytes | None]:
    """The file with metadata before the pixels, without animation and damaged parts; and its transparent colour.

    Args:
        dropped: kinds of metadata to leave out.
    """
    before: list[Chunk] = []
    pixels: list[Chunk] = []
    is_plain, transparent, end = not dropped, None, len(SIGNATURE)
    for chunk in chunks(data):
        end = chunk.end
        is_pixels, is_critical = chunk.kind == b"IDAT", not chunk.kind[0] & 0x20
        if chunk.kind == b"tRNS":
            transparent = data[chunk.content]
        elif chunk.kind == b"acTL" and data[chunk.content][:4] > b"\0\0\0\1":
            notes.append(SEVERAL)
            is_plain = False
            continue
        elif chunk.kind in _ANIMATION or chunk.kind in dropped:
            is_plain = False
            continue
        elif not is_critical and zlib.crc32(data[chunk.start + 4 : chunk.end - 4]) != _checksum(data, chunk):
            notes.append(f"damaged {chunk.kind.decode('latin-1')!r} was dropped (its checksum is wrong)")
            is_plain = False
            continue
        is_plain = is_plain and (is_pixels or chunk.kind == b"IEND" or not pixels)
        if chunk.kind != b"IEND":
            (pixels if is_pixels else before).append(chunk)
    rest = data[end:]
    if is_plain and data.endswith(_END):
        return data, transparent
    if not rest.startswith(b"IDAT", 4):
        rest = _END
    return b"".join([SIGNATURE, *(data[chunk.start : chunk.end] for chunk in before + pixels), rest]), transparent


def _is_cut_off(data: bytes) -> bool:
    """Return whether the file ends within its pixels or before them."""
    found = list(chunks(data))
    end = found[-1].end if found else len(SIGNATURE)
    return data[end + 4 : end + 8] == b"IDAT" or all(chunk.kind != b"IDAT" for chunk in found)


def _checksum(data: bytes, chunk: Chunk) -> int:
    return int.from_bytes(data[chunk.end - 4 : chunk.end], "big")


def _wide(ordered: bytes, layout: _Layout) -> Channels:
    """16 bits per sample, as uint16; compared with Pillow's reading of the first rows."""
    import imagecodecs

    needed = [ordered[chunk.start : chunk.end] for chunk in chunks(ordered) if chunk.kind in (b"IHDR", b"IDAT")]
    plain = b"".join([SIGNATURE, *needed])
    values = imagecodecs.png_decode(plain + _END)
    count = _SAMPLES[layout.colour]
    values = values.reshape(layout.height, layout.width, -1)
    if values.dtype != np.uint16 or values.shape[2] != count:
        raise OSError(f"{values.shape[2]} channels of {values.dtype} were decoded, not {count} of uint16")
    _compare(values, plain, layout)
    if count in (1, 3):
        return values, None
    return np.ascontiguousarray(values[:, :, :-1]), np.ascontiguousarray(values[:, :, -1])


def _compare(values: NDArray[np.uint16], plain: bytes, layout: _Layout) -> None:
    """Compare the first rows (all of them, if interlaced) with Pillow's reading: of 8 bits, except grey.

    Raises:
        DisagreementError: they differ.
    """
    rows = layout.height if layout.interlaced else min(layout.height, _COMPARED_ROWS)
    with pillow_settings():
        other = np.array(Image.open(io.BytesIO(with_rows(plain + _END, rows)), formats=("PNG",)))
    ours = values[:rows] if layout.colour == 0 else high_bytes(values[:rows])
    if layout.colour == 4:
        ours = ours[:, :, [0, 0, 0, 1]]
    check_equal("libpng", ours, "Pillow", other.reshape(ours.shape))


def check_equal(name: str, ours: NDArray[np.generic], other_name: str, other: NDArray[np.generic]) -> None:
    """Compare two readings [H, W, C].

    Raises:
        DisagreementError: with the first pixel that differs.
    """
    different = np.argwhere(ours != other)
    if len(different):
        row, column = (int(place) for place in different[0][:2])
        readings = (
            f"{who} reads {values[row, column].tolist()}" for who, values in ((name, ours), (other_name, other))
        )
        raise DisagreementError(f"{' and '.join(readings)} at row {row}, column {column}")


def with_rows(data: bytes, rows: int) -> bytes:
    """The file with a header that promises ``rows`` rows: any decoder stops there."""
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    return b"".join([data[:12], header, struct.pack(">I", zlib.crc32(header)), data[_HEADER_END:]])


def _keyed(pixels: NDArray[np.generic], layout: _Layout) -> NDArray[np.generic]:
    """Alpha of a picture with one transparent colour."""
    assert layout.transparent is not None
    count = _SAMPLES[layout.colour]
    if len(layout.transparent) < 2 * count:
        raise OSError("its tRNS chunk is too short")
    mask = 2**layout.depth - 1
    white = np.iinfo(pixels.dtype).max
    key = [(sample & mask) * white // mask for sample in struct.unpack_from(f">{count}H", layout.transparent)]
    is_key = (pixels == np.array(key, dtype=pixels.dtype)).all(axis=2)
    return np.where(is_key, 0, white).astype(pixels.dtype)


def _completed(ordered: bytes, layout: _Layout) -> bytes:
    """The file with black rows in the place of those that are missing.

    Raises:
        TruncatedError: there is no row.
    """
    found = list(chunks(ordered))
    compressed = [ordered[chunk.content] for chunk in found if chunk.kind == b"IDAT"]
    tail = ordered[found[-1].end if found else len(ordered) :]
    if tail.startswith(b"IDAT", 4):
        compressed.append(tail[8:])
    sizes = [(layout.row_bytes, layout.height)]
    if layout.interlaced:
        shapes = [
            (-(-(layout.width - left) // across), -(-(layout.height - top) // down))
            for top, left, down, across in _PASSES
        ]
        sizes = [(layout.packed(width), height) for width, height in shapes if width > 0 and height > 0]
    expected = sum((row + 1) * height for row, height in sizes)
    raw = _inflated(b"".join(compressed), expected)
    if len(raw) <= layout.row_bytes and not layout.interlaced:
        raise TruncatedError("it ends before its first row does")
    whole = len(raw) if layout.interlaced else len(raw) - len(raw) % (layout.row_bytes + 1)
    filled = zlib.compress(raw[:whole].ljust(expected, b"\0"), 1)
    before = [ordered[chunk.start : chunk.end] for chunk in found if chunk.kind not in (b"IDAT", b"IEND")]
    content = b"IDAT" + filled
    pixels = struct.pack(">I", len(filled)) + content + struct.pack(">I", zlib.crc32(content))
    return b"".join([SIGNATURE, *before, pixels, _END])


def _inflated(compressed: bytes, most: int) -> bytes:
    """As much as can be decompressed, and no more than ``most`` bytes."""
    stream, parts, length = zlib.decompressobj(), [], 0
    try:
        for place in range(0, len(compressed), 256):
            parts.append(stream.decompress(compressed[place : place + 256], most - length))
            length += len(parts[-1])
            if length >= most:
                break
    except zlib.error:
        pass
    return b"".join(parts)
