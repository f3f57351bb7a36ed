"""Writing PNG, TIFF and PNM while their rows come in from top to bottom, in memory that does not grow with them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mambair.images.decoded_image import DecodedImage

try:
    from isal import isal_zlib  # quicker than zlib on photographs, for files a little larger
except ImportError:  # it has no wheel for this processor
    isal_zlib = None

_CHUNK = 2**20  # bytes of pixels that are compressed at a time
_LARGEST_TIFF = 2**32 - 2**24  # offsets of 32 bits, with room for the tags; larger files are BigTIFF
_BIG_TIFF = b"II\x2b\0\x08\0\0\0" + bytes(8)


@dataclass(frozen=True)
class ImageSpec:
    """What a picture's file says besides its pixels.

    Attributes:
        height, width: in pixels.
        mode: "L", "LA", "RGB" or "RGBA".
        dtype: "uint8", "uint16" or "float32".
        icc_profile, exif, xmp, dpi: as in ``DecodedImage``.
    """

    height: int
    width: int
    mode: str
    dtype: str
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None

    @property
    def channels(self) -> int:
        """1 to 4, in the order of ``mode``."""
        return {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[self.mode]

    @property
    def nbytes(self) -> int:
        """Of the pixels."""
        return self.height * self.width * self.channels * np.dtype(self.dtype).itemsize


def spec_of(image: DecodedImage) -> ImageSpec:
    """The specification of an image that is in memory."""
    height, width = image.pixels.shape[:2]
    dtype = image.pixels.dtype.name
    return ImageSpec(height, width, image.mode, dtype, image.icc_profile, image.exif, image.xmp, image.dpi)


class StripWriter(Protocol):
    """Takes the rows of a picture from top to bottom."""

    def write(self, rows: NDArray[np.generic]) -> None:
        """The next rows, [N, W, C], of the spec's dtype."""

    def close(self) -> None:
        """Complete the file, after the last row; the stream stays open."""


class PngWriter:
    """PNG of 8 or 16 bits, each byte as its difference from the mean of those to the left and above.

    On photographs that is nearly as small as choosing the best filter for each row, and far quicker.
    """

    def __init__(self, stream: BinaryIO, spec: ImageSpec) -> None:
        self._stream, self._bytes_per_pixel = stream, spec.channels * np.dtype(spec.dtype).itemsize
        self._above = np.zeros((1, spec.width * self._bytes_per_pixel), dtype=np.uint8)
        self._compressor = _compressor()
        colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[spec.channels]
        depth = 8 * np.dtype(spec.dtype).itemsize
        stream.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", spec.width, spec.height, depth, colour_type, 0, 0, 0))
        if spec.icc_profile:
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(spec.icc_profile))
        if spec.dpi:
            across, down = (round(each / 0.0254) for each in spec.dpi)
            self._chunk(b"pHYs", struct.pack(">IIB", across, down, 1))  # in a metre
        if spec.xmp:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + spec.xmp)
        if spec.exif:
            self._chunk(b"eXIf", spec.exif)

    def write(self, rows: NDArray[np.generic]) -> None:
        big_endian = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">"))
        values = big_endian.view(np.uint8).reshape(len(rows), -1)
        step = max(1, _CHUNK // values.shape[1])
        for first in range(0, len(values), step):
            part = values[first : first + step]
            filtered = _filtered(np.concatenate([self._above, part]), self._bytes_per_pixel)
            self._above = part[-1:].copy()
            self._data(self._compressor.compress(filtered))

    def close(self) -> None:
        self._data(self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _data(self, compressed: bytes) -> None:
        if compressed:
            self._chunk(b"IDAT", compressed)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._stream.write(struct.pack(">I", len(content)) + kind)
        self._stream.write(content)
        crc32 = zlib.crc32 if isal_zlib is None else isal_zlib.crc32
        self._stream.write(struct.pack(">I", crc32(content, crc32(kind))))


def _compressor() -> Any:
    """Takes bytes as differences; the stream is that of zlib."""
    if isal_zlib is not None:
        return isal_zlib.compressobj(2)  # on photographs no slower than 1, and a little smaller
    # runs only: filtered photographs repeat nothing else; quicker and smaller than level 3 of the usual strategy
    return zlib.compressobj(1, strategy=zlib.Z_RLE)


def _filtered(rows: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Rows [1 + N, bytes], the first being the one above, as differences: [N, 1 + bytes], PNG's filter 3 first."""
    above, here = rows[:-1], rows[1:]
    left = np.zeros_like(here)
    left[:, step:] = here[:, :-step]
    filtered = np.empty((len(here), 1 + here.shape[1]), dtype=np.uint8)
    filtered[:, 0] = 3
    # the mean of two bytes, rounded down, without a ninth bit
    np.subtract(here, (left & above) + ((left ^ above) >> 1), out=filtered[:, 1:])
    return filtered


class TiffWriter:
    """TIFF in deflated strips, integers as differences from the pixel to the left.

    The tags stand before the strips: written once to hold the place, and once filled in.
    """

    def __init__(self, stream: BinaryIO, spec: ImageSpec) -> None:
        self._stream, self._layout = stream, spec
        row = spec.nbytes // spec.height
        self._rows_per_strip = min(spec.height, max(1, _CHUNK // row))
        self._counts: list[int] = []
        self._waiting: list[NDArray[np.generic]] = []
        stream.write(self._header())

    def write(self, rows: NDArray[np.generic]) -> None:
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._rows_per_strip:
            gathered = np.concatenate(self._waiting)
            whole = len(gathered) - len(gathered) % self._rows_per_strip
            for first in range(0, whole, self._rows_per_strip):
                self._strip(gathered[first : first + self._rows_per_strip])
            self._waiting = [gathered[whole:].copy()]

    def close(self) -> None:
        rest = np.concatenate(self._waiting)
        if len(rest):
            self._strip(rest)
        end = self._stream.tell()
        self._stream.seek(0)
        self._stream.write(self._header())
        self._stream.seek(end)

    def _strip(self, rows: NDArray[np.generic]) -> None:
        if self._has_predictor:
            rows = np.concatenate([rows[:, :1], rows[:, 1:] - rows[:, :-1]], axis=1)
        compressor = _compressor()
        compressed = compressor.compress(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
        self._counts.append(self._stream.write(compressed + compressor.flush()))

    @property
    def _has_predictor(self) -> bool:
        return self._layout.dtype != "float32"  # whose differences are rounded

    def _header(self) -> bytes:
        spec, strips = self._layout, -(-self._layout.height // self._rows_per_strip)
        is_big = spec.nbytes > _LARGEST_TIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(_BIG_TIFF) if is_big else TiffImagePlugin.ImageFileDirectory_v2()
        _add_exif(tags, spec.exif)
        counts = [*self._counts, *[0] * (strips - len(self._counts))]
        bits = np.dtype(spec.dtype).itemsize * 8
        tags[256], tags[257] = spec.width, spec.height
        tags[258] = (bits,) * spec.channels
        tags[259] = 8  # Adobe deflate
        tags[262] = 2 if spec.channels > 2 else 1
        tags.tagtype[273] = tags.tagtype[279] = 16 if is_big else 4  # the same size whatever the numbers
        # from the end of the tags: Pillow adds their length
        tags[273] = _running(counts)
        tags[277] = spec.channels
        tags[278] = self._rows_per_strip
        tags[279] = tuple(counts)
        if spec.dpi:
            tags[282], tags[283] = spec.dpi
            tags[296] = 2  # in an inch
        tags[284] = 1
        tags[317] = 2 if self._has_predictor else 1
        if spec.mode.endswith("A"):
            tags[338] = (2,)  # not multiplied into the colours
        tags[339] = (3 if spec.dtype == "float32" else 1,) * spec.channels
        if spec.icc_profile:
            tags.tagtype[34675] = 7
            tags[34675] = spec.icc_profile
        if spec.xmp:
            tags.tagtype[700] = 1
            tags[700] = spec.xmp
        stream = io.BytesIO()
        tags.save(stream)
        return stream.getvalue()


def _running(counts: list[int]) -> tuple[int, ...]:
    """Where each strip begins, counted from the first."""
    return tuple(int(start) for start in np.cumsum([0, *counts[:-1]]))


def _add_exif(tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes | None) -> None:
    if not data:
        return
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + data)
    for tag, value in exif.items():
        group = exif.get_ifd(tag) if tag in (34665, 34853) else None
        tags[tag] = dict(group) if group else value


class PnmWriter:
    """Binary PGM (grey) or PPM (RGB) of 8 or 16 bits; no alpha, no metadata."""

    def __init__(self, stream: BinaryIO, spec: ImageSpec) -> None:
        self._stream = stream
        kind = "P5" if spec.mode == "L" else "P6"
        stream.write(f"{kind}\n{spec.width} {spec.height}\n{np.iinfo(spec.dtype).max}\n".encode("ascii"))

    def write(self, rows: NDArray[np.generic]) -> None:
        self._stream.write(np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">")).tobytes())

    def close(self) -> None:
        pass
