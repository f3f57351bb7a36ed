"""Encoded bytes to pixels and metadata: Pillow, and OpenCV for the colour files Pillow would reduce to 8 bits."""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from mambair.images.decoded_image import DecodedImage

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "AVIF", "BMP", "DIB", "PPM", "GIF")
# what decoders raise on damaged bytes
DECODING_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PPM_HEADER = re.compile(rb"P6(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))[2-8]")
_BASE_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_ORIENTATION, _EXIF_IFD, _GPS_IFD, _XMP_TAG, _ICC_TAG = 274, 34665, 34853, 700, 34675
_pillow_limit = threading.Lock()


class TooManyPixelsError(ValueError):
    """The header promises more pixels than the caller allows."""


def decode(data: bytes, max_pixels: int) -> DecodedImage:
    """Decode a whole file: pixels upright, with everything the module ``files`` says it keeps.

    Args:
        data: the content of the file.
        max_pixels: larger pictures are refused before anything is decoded (decompression bombs).

    Raises:
        TooManyPixelsError: height times width is above ``max_pixels``.
        PIL.UnidentifiedImageError: the bytes are none of ``FORMATS``.
        ImportError: the file needs OpenCV, which cannot be imported.
        One of DECODING_FAULTS: damaged, truncated, or of a kind that is not supported.
    """
    directory = _tiff_directory(data) if data.startswith(_TIFF) else None
    if directory is not None and _is_wide_tiff(directory):
        return _decode_wide_tiff(data, directory, max_pixels)
    picture = _open(data, max_pixels)
    source_mode = picture.mode
    picture.load()
    exif, orientation = _exif_and_orientation(picture)
    if _is_wide_png(data):
        pixels, alpha = _decode_with_opencv(data, is_grey=data[25] == 4)
    elif (wide_ppm := _wide_ppm_pixels(data)) is not None:
        pixels, alpha = wide_ppm, None
    else:
        pixels, alpha = _pixels(picture)
    return DecodedImage(
        pixels=_upright(_checked(pixels), orientation),
        alpha=None if alpha is None else _upright(alpha, orientation),
        # a profile of CMYK or Lab numbers does not describe the RGB made of them
        icc_profile=None if source_mode in ("CMYK", "LAB") else picture.info.get("icc_profile") or None,
        exif=exif,
        xmp=_xmp(picture.info.get("xmp")),
        source_format="JPEG" if picture.format == "MPO" else picture.format or "",
        source_mode=source_mode,
    )


def decode_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """(height, width) that ``decode`` would give, from the header alone; it raises the same."""
    directory = _tiff_directory(data) if data.startswith(_TIFF) else None
    if directory is not None and _is_wide_tiff(directory):
        width, height = _tiff_size(directory, max_pixels)
        orientation = directory.get(_ORIENTATION, 1)
    else:
        picture = _open(data, max_pixels)
        width, height = picture.size  # Pillow says the upright size of a TIFF
        orientation = 1 if picture.format == "TIFF" else picture.getexif().get(_ORIENTATION, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header; ``max_pixels`` takes the place of Pillow's process-wide limit."""
    Image.init()
    with _without_pillow_limit():
        picture = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    _check_size(picture.width, picture.height, max_pixels)
    return picture


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(f"{width} x {height} pixels are more than the limit of {max_pixels}")


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _pixels(picture: Image.Image) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    """[H, W, C] and alpha [H, W] of a picture that Pillow decodes without loss."""
    if picture.mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16)[:, :, None], None
    if picture.mode == "I":
        return _as_uint16(np.array(picture))[:, :, None], None
    if picture.mode == "F":
        return np.array(picture, dtype=np.float32)[:, :, None], None
    if picture.mode == "CMYK":
        return np.array(_cmyk_to_rgb(picture)), None
    transparent = picture.has_transparency_data
    kind = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    values = np.array(picture.convert(kind + "A" if transparent else kind))
    if values.ndim == 2:
        return values[:, :, None], None
    if not transparent:
        return values, None
    return np.ascontiguousarray(values[:, :, :-1]), np.ascontiguousarray(values[:, :, -1])


def _as_uint16(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("it holds 32-bit integers; only 8 and 16 bit, and 32-bit floats, are supported")
    return values.astype(np.uint16)


def _cmyk_to_rgb(picture: Image.Image) -> Image.Image:
    """Through the picture's own profile to sRGB; by the plain formula if it has none that works."""
    profile = picture.info.get("icc_profile")
    if profile:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, io.BytesIO(profile), srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return picture.convert("RGB")


def _checked(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("it holds pixels that are not finite numbers")
    return pixels


def _upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Apply an EXIF orientation (1 to 8) to [H, W, ...]."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _exif_and_orientation(picture: Image.Image) -> tuple[bytes | None, int]:
    """EXIF data with its orientation reset, and the orientation (1 to 8) that is still to be applied."""
    try:
        exif = picture.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        if picture.format == "TIFF":
            return _descriptive(exif), 1  # Pillow has turned it in load()
        encoded = _encoded(exif)
    except DECODING_FAULTS:
        return None, 1  # damaged EXIF is no reason to refuse the picture
    return encoded, orientation if orientation in range(1, 9) else 1


def _descriptive(tags: Image.Exif) -> bytes | None:
    """A TIFF's tags as EXIF data, without those that describe how this very file is laid out."""
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in _BASE_TAGS if tag in tags})
    for group in (_EXIF_IFD, _GPS_IFD):
        if values := tags.get_ifd(group):
            kept[group] = values
    return _encoded(kept)


def _encoded(exif: Image.Exif) -> bytes | None:
    if not exif:
        return None
    exif[_ORIENTATION] = 1
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _xmp(packet: object) -> bytes | None:
    if isinstance(packet, str):
        packet = packet.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet) if isinstance(packet, bytes) and packet else None


def _is_wide_png(data: bytes) -> bool:
    """16 bits per channel, and more than one channel."""
    return data.startswith(_PNG) and len(data) > 25 and data[24] == 16 and data[25] in (2, 4, 6)


def _wide_ppm_pixels(data: bytes) -> NDArray[np.uint16] | None:
    """[H, W, 3] of a binary PPM with more than 8 bits; None if the file is no such thing."""
    header = _PPM_HEADER.match(data)
    if header is None or int(header[3]) < 256:
        return None
    width, height, white = (int(number) for number in header.groups())
    if len(data) - header.end() < width * height * 6:
        raise OSError("image file is truncated")
    values = np.frombuffer(data, dtype=">u2", count=width * height * 3, offset=header.end()).astype(np.float64)
    return np.floor(values * (65535 / white) + 0.5).astype(np.uint16).reshape(height, width, 3)


def _decode_with_opencv(
    data: bytes, *, is_grey: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    """16-bit and float colour; OpenCV gives BGR(A), and grey with alpha as BGRA."""
    import cv2  # at first need: it is slow to import and needs system libraries that servers often lack

    decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise OSError("OpenCV cannot decode it")
    if decoded.dtype == np.float64:
        decoded = decoded.astype(np.float32)
    if decoded.ndim == 2:
        return decoded[:, :, None], None
    alpha = np.ascontiguousarray(decoded[:, :, 3]) if decoded.shape[2] == 4 else None
    colour = decoded[:, :, :1] if is_grey else decoded[:, :, 2::-1]
    return np.ascontiguousarray(colour), alpha


def _tiff_directory(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of the first picture of a TIFF."""
    header = data[:16] if _is_big(data) else data[:8]
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    stream = io.BytesIO(data)
    stream.seek(directory.next)
    directory.load(stream)
    return directory


def _is_big(data: bytes) -> bool:
    """BigTIFF: offsets of 64 bits."""
    return data[2] == 43 or data[3] == 43


def _is_wide_tiff(tags: Mapping[int, object]) -> bool:
    """More than 8 bits per channel, and more than one channel."""
    bits = tags.get(258, (1,))
    deepest = max(bits) if isinstance(bits, tuple) else bits
    channels = tags.get(277, 1)
    return isinstance(deepest, int) and isinstance(channels, int) and deepest > 8 and channels > 1


def _tiff_size(directory: TiffImagePlugin.ImageFileDirectory_v2, max_pixels: int) -> tuple[int, int]:
    width, height = directory.get(256), directory.get(257)
    if not (isinstance(width, int) and isinstance(height, int)):
        raise OSError("its TIFF directory says no size")
    _check_size(width, height, max_pixels)
    return width, height


def _decode_wide_tiff(data: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2, max_pixels: int) -> DecodedImage:
    """16-bit or float colour; OpenCV applies the orientation itself."""
    _tiff_size(directory, max_pixels)
    for offsets, counts in ((273, 279), (324, 325)):
        # OpenCV fills what is missing of a strip or tile with zeros
        ends = [sum(pair) for pair in zip(directory.get(offsets, ()), directory.get(counts, ()), strict=False)]
        if max(ends, default=0) > len(data):
            raise OSError("image file is truncated")
    photometric = directory.get(262)
    if photometric not in (0, 1, 2):
        raise OSError(
            f"16-bit and float TIFF must be grey or RGB, this one has photometric interpretation {photometric}"
        )
    pixels, alpha = _decode_with_opencv(data, is_grey=photometric != 2)
    channels = pixels.shape[2] + (alpha is not None)
    if pixels.dtype == np.uint8 or channels != directory.get(277):
        raise OSError(f"OpenCV sees {channels} channels of {pixels.dtype} in it, not {directory.get(277)} wider ones")
    tags = Image.Exif()
    if _is_big(data):  # Pillow follows no group of tags there
        tags.update({tag: value for tag, value in directory.items() if tag in _BASE_TAGS})
    else:
        tags.load(b"Exif\0\0" + data)
    return DecodedImage(
        pixels=_checked(pixels),
        alpha=alpha,
        icc_profile=directory.get(_ICC_TAG),
        exif=_descriptive(tags),
        xmp=_xmp(directory.get(_XMP_TAG)),
        source_format="TIFF",
        source_mode=f"{channels} channels of {pixels.dtype}",
    )
