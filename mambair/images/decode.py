"""Encoded bytes to pixels and metadata. The header is read in one way, whether the pixels are asked for or the size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mambair.images import tiff
from mambair.images.bmp import opened_bmp
from mambair.images.decoded_image import DecodedImage
from mambair.images.formats import recognised
from mambair.images.jpeg2000 import opened_jpeg2000
from mambair.images.opened import SEVERAL, OpenedFile, Request
from mambair.images.pillow_files import opened_by_pillow
from mambair.images.png import opened_png
from mambair.images.pnm import opened_pnm

_TURNED = (5, 6, 7, 8)


def decode(data: bytes, max_pixels: int, *, suffix: str = "", allow_truncated: bool = False) -> DecodedImage:
    """Decode a whole file: pixels upright, with everything the module ``files`` says it keeps.

    Args:
        data: the content of the file.
        max_pixels: larger pictures are refused before anything is decoded (decompression bombs).
        suffix: the file's ending; only TGA and negatives of cameras are told by it.
        allow_truncated: give what there is of a damaged picture, and note it.

    Raises:
        TooManyPixelsError: height times width is above ``max_pixels``.
        UnsupportedKindError: a format, or a kind within a format, that is not read.
        DisagreementError: two decoders read different pixels.
        One of DECODING_FAULTS: damaged or truncated.
    """
    request = Request(data, suffix, max_pixels, allow_truncated)
    opened = _opened(request)
    pixels, alpha = opened.channels()
    turn = opened.metadata.orientation
    return DecodedImage(
        pixels=_upright(_checked(pixels), turn),
        alpha=None if alpha is None else _upright(_checked(alpha), turn),
        icc_profile=opened.metadata.icc_profile,
        exif=opened.metadata.exif,
        xmp=opened.metadata.xmp,
        source_format=opened.format,
        source_mode=opened.mode,
        notes=tuple(dict.fromkeys(request.notes)),
        dpi=(dpi[1], dpi[0]) if (dpi := opened.metadata.dpi) and turn in _TURNED else dpi,
    )


def decode_size(data: bytes, max_pixels: int, *, suffix: str = "", allow_truncated: bool = False) -> tuple[int, int]:
    """(height, width) that ``decode`` would give, from the header alone; it raises the same."""
    opened = _opened(Request(data, suffix, max_pixels, allow_truncated))
    is_turned = opened.metadata.orientation in _TURNED
    return (opened.width, opened.height) if is_turned else (opened.height, opened.width)


def _opened(request: Request) -> OpenedFile:
    """Read the header, by the format that the content shows."""
    format = recognised(request.data, request.suffix)
    if format == "PNG":
        return opened_png(request)
    if format == "TIFF":
        directory = tiff.directory_of(request.data)
        if directory.next:
            request.notes.append(SEVERAL)
        if tiff.is_for_tifffile(directory):
            return tiff.opened_tiff(request, directory)
    if format == "BMP":
        return opened_bmp(request)
    if format == "JPEG2000":
        return opened_jpeg2000(request)
    if format == "PPM":
        return opened_pnm(request)
    return opened_by_pillow(request, format)


def _checked(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("it holds pixels that are not finite numbers")
    return pixels


def _upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Apply an EXIF orientation (1 to 8) to [H, W, ...]."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
