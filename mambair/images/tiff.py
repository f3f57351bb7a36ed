"""TIFF with more than 8 bits or with extra samples: tifffile and imagecodecs, compared with Pillow's libtiff.

Each strip or tile is decoded by itself into the picture, so a large file needs its own size and that of its pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mambair.images import metadata
from mambair.images.chatter import pillow_settings
from mambair.images.formats import refuse_camera_raw
from mambair.images.opened import Channels, OpenedFile, Request, as_uint16, scaled_to_white
from mambair.images.pillow_files import PARTIAL, high_bytes
from mambair.images.png import check_equal
from mambair.images.reasons import DECODING_FAULTS, DisagreementError, TruncatedError, UnsupportedKindError

if TYPE_CHECKING:
    from tifffile import TiffPage

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _EXTRA = 256, 257, 258, 259, 262, 277, 338
_NO_COMPRESSION, _JPEG = 1, (6, 7)
_ASSOCIATED, _UNASSOCIATED = 1, 2
_FLOAT = 3  # a sample format
_NAMES = {3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 32803: "raw data of a camera"}
_COMPARED_ROWS = 16
_BAND = 256  # rows whose colours are divided by alpha at a time


@dataclass(frozen=True)
class _Kind:
    """What the samples of a page are.

    Attributes:
        colours: 1 or 3.
        alpha: which sample is alpha, or None.
        associated: colours are multiplied by alpha.
        white: the number of white in the file, or None for floats and for integers of 32 bits.
        inverted: grey is stored with white as 0.
        dtype: of the decoded picture.
    """

    colours: int
    alpha: int | None
    associated: bool
    white: int | None
    inverted: bool
    dtype: np.dtype[Any]

    def converted(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Samples of the file as those of the picture, but for ``inverted``."""
        if self.white is not None:
            return scaled_to_white(values, self.white)
        if values.dtype.kind != "f":
            return as_uint16(values)
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are refused later
            return values.astype(np.float32)


def directory_of(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of the first picture of a TIFF.

    Raises:
        UnsupportedKindError: it is a camera's negative.
        One of DECODING_FAULTS: damaged.
    """
    header = data[:16] if _is_big(data) else data[:8]
    with pillow_settings():
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream = io.BytesIO(data)
        stream.seek(directory.next)
        directory.load(stream)
    refuse_camera_raw(directory)
    return directory


def is_for_tifffile(tags: Mapping[int, object]) -> bool:
    """Return whether a TIFF has more than 8 bits per sample, or samples besides those of its colours."""
    photometric, samples = tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1)
    if _deepest(tags) > 8:
        return True
    colours = {0: 1, 1: 1, 2: 3}.get(photometric) if isinstance(photometric, int) else None
    has_more = colours is not None and isinstance(samples, int) and samples > colours
    return has_more and _deepest(tags) == 8 and tags.get(_COMPRESSION) not in _JPEG


def _deepest(tags: Mapping[int, object]) -> int:
    bits = tags.get(_BITS, 1)
    numbers = bits if isinstance(bits, tuple) else (bits,)
    return max((number for number in numbers if isinstance(number, int)), default=1)


def _is_big(data: bytes) -> bool:
    """BigTIFF: offsets of 64 bits."""
    return data[2] == 43 or data[3] == 43


def opened_tiff(request: Request, tags: TiffImagePlugin.ImageFileDirectory_v2) -> OpenedFile:
    """Describe a TIFF that ``is_for_tifffile``; see ``decode`` for errors."""
    width, height = tags.get(_WIDTH), tags.get(_HEIGHT)
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise OSError("its TIFF directory gives no size")
    request.check_size(width, height)
    photometric = tags.get(_PHOTOMETRIC)
    if photometric not in (0, 1, 2):
        name = _NAMES.get(photometric, f"photometric interpretation {photometric}")
        raise UnsupportedKindError(
            f"is of an unsupported kind: {name} of {_deepest(tags)} bits; 16-bit and float TIFF must be grey or RGB"
        )
    with pillow_settings():
        exif = metadata.tiff_tags(request.data, dict(tags), is_big=_is_big(request.data), notes=request.notes)
        described = metadata.of_tiff(exif, tags.get(34675), tags.get(700), tags.get(274), request.notes)
    mode = f"{tags.get(_SAMPLES, 1)} samples of {_deepest(tags)} bits"
    return OpenedFile("TIFF", mode, width, height, described, lambda: _channels(request, (height, width)))


def _channels(request: Request, size: tuple[int, int]) -> Channels:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(request.data)) as file:
            page = file.pages.first
            if (page.imagelength, page.imagewidth) != size or page.imagedepth != 1:
                raise OSError(f"its size is read as {page.imagewidth} x {page.imagelength} x {page.imagedepth}")
            return _decoded(page, _kind(page, request.notes), request)
    except DECODING_FAULTS:
        raise
    except tifffile.TiffFileError as error:
        raise OSError(str(error)) from error


def _kind(page: TiffPage, notes: list[str]) -> _Kind:
    dtype = page.dtype
    if dtype is None or dtype.kind not in "uif" or page.sampleformat not in (1, 2, 3):
        raise UnsupportedKindError(
            f"is of an unsupported kind: samples of {page.bitspersample} bits and sample format {page.sampleformat}"
        )
    colours = 3 if page.photometric == 2 else 1
    if page.samplesperpixel < colours:
        raise OSError(f"it has {page.samplesperpixel} samples per pixel, too few for RGB")
    extra = list(page.extrasamples)[: page.samplesperpixel - colours]
    if not extra and page.samplesperpixel == colours + 1:
        extra = [_UNASSOCIATED]
        notes.append("the sample after the colours has no declared meaning; it is taken as alpha")
    alphas = [place for place, meaning in enumerate(extra) if meaning in (_ASSOCIATED, _UNASSOCIATED)]
    dropped = page.samplesperpixel - colours - bool(alphas)
    if dropped:
        notes.append(f"{dropped} extra sample{'s' * (dropped > 1)} per pixel without a meaning for pictures dropped")
    bits = page.bitspersample
    is_whole = dtype.kind == "u" and bits <= 16
    final = np.uint8 if is_whole and bits <= 8 else np.float32 if dtype.kind == "f" else np.uint16
    return _Kind(
        colours,
        colours + alphas[0] if alphas else None,
        bool(alphas) and extra[alphas[0]] == _ASSOCIATED,
        2**bits - 1 if is_whole else None,
        page.photometric == 0,
        np.dtype(final),
    )


def _decoded(page: TiffPage, kind: _Kind, request: Request) -> Channels:
    height, width = page.imagelength, page.imagewidth
    # what no strip fills stays 0: memory of others is never shown
    pixels = np.zeros((height, width, kind.colours), dtype=kind.dtype)
    alpha = None if kind.alpha is None else np.zeros((height, width), dtype=kind.dtype)
    done, first_fault = 0, None
    for number in range(_segments_of(page)):
        try:
            for sample, top, left, values in _segment(page, number, kind, request):
                rows, columns = slice(top, top + values.shape[0]), slice(left, left + values.shape[1])
                converted = kind.converted(values)
                if sample < kind.colours:
                    pixels[rows, columns, sample] = converted
                elif alpha is not None:
                    alpha[rows, columns] = converted
            done += 1
        except DECODING_FAULTS as error:
            if not request.allow_truncated or isinstance(error, (DisagreementError, UnsupportedKindError)):
                raise
            first_fault = first_fault or error
    if first_fault is not None:
        if not done:
            raise first_fault
        request.notes.append(PARTIAL)
    if kind.inverted:
        np.subtract(1 if kind.dtype.kind == "f" else np.iinfo(kind.dtype).max, pixels, out=pixels)
    if kind.associated and alpha is not None:
        for top in range(0, height, _BAND):
            band = slice(top, top + _BAND)
            pixels[band] = divided_by_alpha(pixels[band], alpha[band])
    return pixels, alpha


def divided_by_alpha(colour: NDArray[np.generic], alpha: NDArray[np.generic]) -> NDArray[np.generic]:
    """Colours [H, W, C] that are multiplied by alpha [H, W], as they were before; rounded to the nearest integer."""
    divisor = alpha[:, :, None]
    if colour.dtype.kind == "f":
        return np.divide(colour, divisor, out=np.zeros_like(colour), where=divisor > 0)
    white = int(np.iinfo(colour.dtype).max)
    wide = divisor.astype(np.uint32)
    rounded = (colour * np.uint32(white) + wide // 2) // np.maximum(wide, 1)
    return np.where(wide > 0, np.minimum(rounded, white), 0).astype(colour.dtype)


def _segments_of(page: TiffPage) -> int:
    count = int(np.prod(page.chunked))
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if listed < count:
        raise TruncatedError(f"it lists {listed} of {count} strips or tiles")
    return count


def _segment(
    page: TiffPage, number: int, kind: _Kind, request: Request
) -> Iterator[tuple[int, int, int, NDArray[np.generic]]]:
    """One strip or tile as (sample, top, left, values [h, w]), for each sample that is wanted."""
    start, length = page.dataoffsets[number], page.databytecounts[number]
    may_be_cut = request.allow_truncated and page.compression == _NO_COMPRESSION
    end = start + (1 if may_be_cut else length)
    if length <= 0 or start <= 0 or end > len(request.data):
        raise TruncatedError(f"strip or tile {number} is not in the file")
    encoded = memoryview(request.data)[start : start + length]  # a strip may be the whole file
    if may_be_cut and len(encoded) < length:
        encoded = memoryview(bytes(encoded).ljust(length, b"\0"))
        request.notes.append(PARTIAL)
    tables = {"jpegtables": page.jpegtables} if page.compression in _JPEG else {}
    values, (sample, _, top, left, _), _ = page.decode(encoded, number, **tables)
    if values is None:
        raise TruncatedError(f"strip or tile {number} is empty")
    values = values[0, : page.imagelength - top, : page.imagewidth - left]
    segment_height = page.tilelength if page.is_tiled else page.rowsperstrip
    expected = (min(segment_height, page.imagelength - top), page.imagewidth - left)
    if page.is_tiled:
        expected = (expected[0], min(page.tilewidth, expected[1]))
    if values.shape[:2] != expected:
        raise TruncatedError(f"strip or tile {number} holds {values.shape[:2]} pixels of {expected}")
    if number == 0:
        _compare(page, values, encoded, is_big_endian=request.data.startswith(b"MM"))
    wanted = [*range(kind.colours), *([] if kind.alpha is None else [kind.alpha])]
    for place in range(values.shape[2]):
        if sample + place in wanted:
            yield sample + place, top, left, values[:, :, place]


def _compare(page: TiffPage, values: NDArray[np.generic], encoded: memoryview, *, is_big_endian: bool) -> None:
    """Compare the first rows of the first strip or tile with Pillow's reading, if Pillow reads its kind.

    Raises:
        DisagreementError: they differ.
    """
    if is_big_endian and page.compression != _NO_COMPRESSION and page.bitspersample > 16:
        return  # Pillow swaps the bytes of these twice
    width = page.tilewidth if page.is_tiled else page.imagewidth
    rows, (_, shown, count) = min(len(values), _COMPARED_ROWS), values.shape
    if page.predictor == 1:
        # samples side by side are grey pixels side by side, which Pillow reads at any depth
        probe = _probe(page, encoded, rows, width * count, 1, is_big_endian)
    else:
        probe = _probe(page, encoded, rows, width, count, is_big_endian)
    other = _pillows_reading(probe)
    if other is None or other.size != rows * width * count:
        return
    other = other.reshape(rows, width, count)[:, :shown]
    ours = values[:rows]
    if ours.dtype.kind == "i":  # signs are no matter of layout
        ours = ours.astype(f"u{ours.dtype.itemsize}")
    if ours.dtype.kind == "u" and other.dtype.kind == "i" and ours.itemsize == other.itemsize:  # Pillow's of 32 bits
        other = other.astype(ours.dtype)
    if ours.dtype.kind == "u" and other.dtype == np.uint8 and page.bitspersample == 16:
        ours = high_bytes(ours.astype(np.uint16))
    elif ours.dtype.kind == "f":
        # the bits are compared, as numbers that are none differ from themselves
        ours, other = ours.astype(np.float32).view(np.uint32), other.astype(np.float32).view(np.uint32)
    check_equal("tifffile", ours, "Pillow", other)


def _probe(page: TiffPage, encoded: memoryview, rows: int, width: int, count: int, is_big_endian: bool) -> bytes:
    """The beginning of a strip or tile as a TIFF of its own, without the meaning of its samples."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\x08" if is_big_endian else b"II*\0\x08\0\0\0")
    # no compression makes data larger than this
    piece = encoded[: 2 * rows * width * count * page.bitspersample // 8 + 2**18]
    tags[_WIDTH], tags[_HEIGHT], tags[_BITS] = width, rows, (page.bitspersample,) * count
    tags[_COMPRESSION], tags[_PHOTOMETRIC], tags[_SAMPLES] = int(page.compression), 1 if count < 3 else 2, count
    tags.tagtype[273] = tags.tagtype[279] = 4
    tags[273], tags[279], tags[278], tags[284] = 0, len(piece), rows, 1  # Pillow adds the length of the tags to 273
    tags[266], tags[317] = int(page.fillorder), int(page.predictor)
    tags[339] = (_FLOAT if page.sampleformat == _FLOAT else 1,) * count
    if count in (2, 4):
        tags[_EXTRA] = (_UNASSOCIATED,)
    stream = io.BytesIO()
    tags.save(stream)
    return stream.getvalue() + bytes(piece)


def _pillows_reading(probe: bytes) -> NDArray[np.generic] | None:
    try:
        with pillow_settings():
            picture = Image.open(io.BytesIO(probe), formats=("TIFF",))
        picture.load()
        return np.array(picture) if picture.mode in ("L", "LA", "RGB", "RGBA", "F") or "I" in picture.mode else None
    except DECODING_FAULTS:
        return None
