"""Pixels and metadata to encoded bytes: Pillow for 8 bits, and this module itself for TIFF and for 16-bit PNG."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin, features

from mambair.data.image_content import ImageFile, ImageFileError

FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
MODES_OF_FORMAT = {
    "PNG": ("L", "LA", "RGB", "RGBA"),
    "JPEG": ("L", "RGB"),
    "TIFF": ("L", "LA", "RGB", "RGBA"),
    "WEBP": ("L", "LA", "RGB", "RGBA"),
    "BMP": ("L", "RGB"),
    "AVIF": ("L", "LA", "RGB", "RGBA"),
}
DTYPES_OF_FORMAT = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32")}


def encode(image: ImageFile, format: str, quality: int | None) -> bytes:
    """Encode a picture with its metadata (BMP has no place for any).

    Args:
        image: what to encode.
        format: a value of ``FORMAT_OF_SUFFIX``.
        quality: 1 to 100 for JPEG, WebP and AVIF; None means 95 for JPEG, 90 for AVIF, lossless for WebP.

    Raises:
        ImageFileError: the format cannot hold the mode or the dtype.
    """
    _check_fits(image, format)
    if format == "TIFF":
        return _tiff(image)
    if image.pixels.dtype == np.uint16:
        return _png_16_bit(image)
    return _encode_with_pillow(image, format, quality)


def _check_fits(image: ImageFile, format: str) -> None:
    if image.mode not in MODES_OF_FORMAT[format]:
        raise ImageFileError(f"{format} cannot hold transparency (mode {image.mode}); use PNG, TIFF or WebP")
    dtypes = DTYPES_OF_FORMAT.get(format, ("uint8",))
    if image.pixels.dtype.name not in dtypes:
        fitting = [name for name, fit in DTYPES_OF_FORMAT.items() if image.pixels.dtype.name in fit]
        raise ImageFileError(
            f"{format} holds {' or '.join(dtypes)} pixels, not {image.pixels.dtype}; "
            f"use {' or '.join(fitting)}, or convert them first"
        )
    if format == "TIFF" and image.mode == "LA" and image.pixels.dtype != np.uint8:
        raise ImageFileError(f"few programs can read grey TIFF with alpha and {image.pixels.dtype}; use PNG, or RGBA")
    if format == "AVIF" and not features.check("avif"):
        raise ImageFileError("this installation of Pillow cannot write AVIF; use PNG or WebP")


def _encode_with_pillow(image: ImageFile, format: str, quality: int | None) -> bytes:
    values = image.interleaved()
    picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values, mode=None)
    arguments: dict[str, Any] = {}
    if format in ("WEBP", "AVIF") and picture.mode in ("L", "LA"):
        picture = picture.convert("RGB" if picture.mode == "L" else "RGBA")
    elif image.icc_profile and format != "BMP":
        arguments["icc_profile"] = image.icc_profile
    if image.exif and format != "BMP":
        arguments["exif"] = b"Exif\0\0" + image.exif
    if image.xmp and format in ("JPEG", "WEBP", "AVIF"):
        arguments["xmp"] = image.xmp
    if format == "PNG":
        arguments["pnginfo"] = _png_text(image)
    elif format == "JPEG":
        arguments |= {"quality": quality or 95, "subsampling": 0 if (quality or 95) >= 90 else 2}
    elif format == "AVIF":
        arguments |= {"quality": quality or 90, "subsampling": "4:4:4" if (quality or 90) >= 90 else "4:2:0"}
    elif format == "WEBP":
        arguments |= {"quality": quality} if quality else {"lossless": True, "exact": True}
    stream = io.BytesIO()
    picture.save(stream, format, **arguments)
    return stream.getvalue()


def _png_text(image: ImageFile) -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    if image.xmp:
        text.add_itxt("XML:com.adobe.xmp", image.xmp.decode("utf-8", "replace"))
    return text


def _png_16_bit(image: ImageFile) -> bytes:
    """Big-endian samples, each row as its difference from the row above (PNG's "up" filter)."""
    values = image.interleaved()
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, width * channels * 2)
    filtered = np.empty((height, rows.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if image.icc_profile:
        chunks.append(_png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(image.icc_profile)))
    if image.xmp:
        chunks.append(_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + image.xmp))
    if image.exif:
        chunks.append(_png_chunk(b"eXIf", image.exif))
    chunks.append(_png_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _tiff(image: ImageFile) -> bytes:
    """One deflated strip of samples, with the tags that describe it: Pillow can write no RGB of 16 bits or floats."""
    values: NDArray[np.generic] = image.interleaved()
    height, width, channels = values.shape
    strip = zlib.compress(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes(), 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if image.exif:
        exif = Image.Exif()
        exif.load(b"Exif\0\0" + image.exif)
        for tag, value in exif.items():
            group = exif.get_ifd(tag) if tag in (34665, 34853) else None
            tags[tag] = dict(group) if group else value
    bits = values.dtype.itemsize * 8
    tags[256], tags[257] = width, height
    tags[258] = (bits,) * channels
    tags[259] = 8  # Adobe deflate
    tags[262] = 2 if channels > 2 else 1
    tags[273] = 0  # the strip follows the tags; Pillow adds their length
    tags[277] = channels
    tags[278] = height
    tags[279] = len(strip)
    tags[284] = 1
    if image.alpha is not None:
        tags[338] = (2,)  # not multiplied into the colours
    tags[339] = (3 if values.dtype.kind == "f" else 1,) * channels
    if image.icc_profile:
        tags.tagtype[34675] = 7
        tags[34675] = image.icc_profile
    if image.xmp:
        tags.tagtype[700] = 1
        tags[700] = image.xmp
    stream = io.BytesIO()
    tags.save(stream)
    return stream.getvalue() + strip
