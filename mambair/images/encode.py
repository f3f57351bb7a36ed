"""Which format holds what, and pixels to bytes: strip by strip where the format allows it, else through Pillow."""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from mambair.images.decoded_image import DecodedImage, ImageFileError
from mambair.images.stream_writers import ImageSpec, PngWriter, PnmWriter, StripWriter, TiffWriter, spec_of

FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".avif": "AVIF",
    ".ppm": "PNM",
    ".pgm": "PNM",
    ".pnm": "PNM",
}
MODES_OF_FORMAT = {
    "PNG": ("L", "LA", "RGB", "RGBA"),
    "JPEG": ("L", "RGB"),
    "TIFF": ("L", "LA", "RGB", "RGBA"),
    "WEBP": ("L", "LA", "RGB", "RGBA"),
    "BMP": ("L", "RGB"),
    "AVIF": ("L", "LA", "RGB", "RGBA"),
    "PNM": ("L", "RGB"),
}
DTYPES_OF_FORMAT = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32"), "PNM": ("uint8", "uint16")}
# the limits of libjpeg, libwebp and libavif, whose writers take more than their readers
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}
MOST_PIXELS = {"AVIF": 2**28}
LARGEST_METADATA = {"JPEG": {"exif": 65527, "xmp": 65504}}  # bytes, in one segment
STREAMED: dict[str, type[PngWriter] | type[TiffWriter] | type[PnmWriter]] = {
    "PNG": PngWriter,
    "TIFF": TiffWriter,
    "PNM": PnmWriter,
}


def encode(image: DecodedImage, format: str, quality: int | None) -> bytes:
    """Encode a picture that is in memory; arguments and errors as for :func:`open_writer`."""
    stream = io.BytesIO()
    writer = open_writer(stream, format, spec_of(image), quality)
    writer.write(image.interleaved())
    writer.close()
    return stream.getvalue()


def check_fits(spec: ImageSpec, format: str) -> None:
    """Whether a value of ``FORMAT_OF_SUFFIX`` can hold such a picture.

    Raises:
        ImageFileError: the mode, the dtype or the size is beyond it.
    """
    if spec.mode not in MODES_OF_FORMAT[format]:
        raise ImageFileError(f"{format} cannot hold transparency (mode {spec.mode}); use PNG, TIFF or WebP")
    dtypes = DTYPES_OF_FORMAT.get(format, ("uint8",))
    if spec.dtype not in dtypes:
        fitting = [name for name, fit in DTYPES_OF_FORMAT.items() if spec.dtype in fit]
        raise ImageFileError(
            f"{format} holds {' or '.join(dtypes)} pixels, not {spec.dtype}; "
            f"use {' or '.join(fitting)}, or convert them first"
        )
    if format == "TIFF" and spec.mode == "LA" and spec.dtype != "uint8":
        raise ImageFileError(f"few programs can read grey TIFF with alpha and {spec.dtype}; use PNG, or RGBA")
    if not can_write(format):
        raise ImageFileError("this installation of Pillow cannot write AVIF; use PNG or WebP")
    if max(spec.height, spec.width) > LARGEST_SIDE.get(format, 2**31 - 1):
        raise ImageFileError(
            f"{format} holds at most {LARGEST_SIDE[format]} pixels a side, not {spec.width} x {spec.height}; "
            "use PNG or TIFF"
        )
    if spec.height * spec.width > MOST_PIXELS.get(format, 2**62):
        raise ImageFileError(
            f"{format} holds at most {MOST_PIXELS[format]} pixels, not {spec.width} x {spec.height}; use PNG or TIFF"
        )
    for name, size in metadata_beyond(spec, format).items():
        most = LARGEST_METADATA[format][name]
        raise ImageFileError(f"{format} holds at most {most} bytes of {name.upper()}, not {size}; use PNG or TIFF")


def metadata_beyond(spec: ImageSpec, format: str) -> dict[str, int]:
    """The metadata of a picture that is too large for a format: ``exif``, ``xmp``, and how many bytes each has."""
    sizes = {name: len(getattr(spec, name) or b"") for name in LARGEST_METADATA.get(format, {})}
    return {name: size for name, size in sizes.items() if size > LARGEST_METADATA[format][name]}


def can_write(format: str) -> bool:
    """Return whether this installation of Pillow can write a value of ``FORMAT_OF_SUFFIX``."""
    return format != "AVIF" or features.check("avif")


def open_writer(stream: BinaryIO, format: str, spec: ImageSpec, quality: int | None) -> StripWriter:
    """What takes the rows of a picture and writes its file.

    Args:
        stream: open for binary writing, at its beginning; TIFF seeks in it.
        format: a value of ``FORMAT_OF_SUFFIX``.
        spec: what is to be written.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means 95 for JPEG, 90 for AVIF, lossless for WebP.

    Raises:
        ImageFileError: the format cannot hold it.
    """
    check_fits(spec, format)
    streamed = STREAMED.get(format)
    return _CollectingWriter(stream, format, spec, quality) if streamed is None else streamed(stream, spec)


class _CollectingWriter:
    """Keeps the rows until all are there: Pillow's encoders want whole pictures."""

    def __init__(self, stream: BinaryIO, format: str, spec: ImageSpec, quality: int | None) -> None:
        self._stream, self._format, self._layout, self._quality = stream, format, spec, quality
        self._values = np.empty((spec.height, spec.width, spec.channels), dtype=spec.dtype)
        self._row = 0

    def write(self, rows: NDArray[np.generic]) -> None:
        self._values[self._row : self._row + len(rows)] = rows
        self._row += len(rows)

    def close(self) -> None:
        self._stream.write(_encode_with_pillow(self._values, self._layout, self._format, self._quality))


def _encode_with_pillow(values: NDArray[np.generic], spec: ImageSpec, format: str, quality: int | None) -> bytes:
    """Pixels [H, W, C] with their metadata (BMP has no place for any)."""
    picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values, mode=None)
    arguments: dict[str, Any] = {}
    if format in ("WEBP", "AVIF") and picture.mode in ("L", "LA"):
        picture = picture.convert("RGB" if picture.mode == "L" else "RGBA")
    elif spec.icc_profile and format != "BMP":
        arguments["icc_profile"] = spec.icc_profile
    if spec.exif and format != "BMP":
        arguments["exif"] = b"Exif\0\0" + spec.exif
    if spec.xmp and format != "BMP":
        arguments["xmp"] = spec.xmp
    if spec.dpi and format in ("JPEG", "BMP"):
        arguments["dpi"] = spec.dpi
    if format == "JPEG":
        arguments |= {"quality": quality or 95, "subsampling": 0 if (quality or 95) >= 90 else 2}
    elif format == "AVIF":
        arguments |= {"quality": quality or 90, "subsampling": "4:4:4" if (quality or 90) >= 90 else "4:2:0"}
    elif format == "WEBP":
        arguments |= {"quality": quality} if quality else {"lossless": True, "exact": True}
    stream = io.BytesIO()
    try:
        picture.save(stream, format, **arguments)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        raise ImageFileError(f"{format} cannot be written: {' '.join(str(error).split())}") from error
    return stream.getvalue()
