"""Pictures that Pillow decodes without loss."""

from __future__ import annotations

import io
import struct
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from mambair.images import jpeg, metadata
from mambair.images.chatter import pillow_settings
from mambair.images.deep_avif_heif import deep_channels
from mambair.images.opened import SEVERAL, Channels, OpenedFile, Request, as_uint16
from mambair.images.reasons import DECODING_FAULTS, TruncatedError, UnsupportedKindError

_PSD_HEADER = 26
_BITS, _HEAD = 8, 4096
_OF_SEVERAL = ("GIF", "WEBP", "AVIF", "JPEG", "HEIF", "JXL")
PARTIAL = "it is damaged or truncated: missing pixels are black"


def opened_by_pillow(request: Request, format: str) -> OpenedFile:
    """Read the header with one of Pillow's plugins; see ``decode`` for errors."""
    if format == "AVIF":
        _check_avif_size(request)
    scans = jpeg.count_scans(request.data) if format == "JPEG" else 0
    try:
        picture = open_picture(request.data, format)
    except DECODING_FAULTS as error:
        if format != "JPEG":
            raise
        picture = open_picture(jpeg.without_metadata(request.data), format)
        request.notes.append(f"damaged metadata was dropped ({' '.join(str(error).split())})")
    request.check_size(picture.width, picture.height)
    jpeg.check_scans(scans, picture.width, picture.height)
    with pillow_settings():
        described = metadata.of_picture(picture, request.notes)
    if picture.mode in ("CMYK", "LAB"):  # a profile of such numbers does not describe the RGB made of them
        described = replace(described, icc_profile=None)
    name = {"MPO": "JPEG", "DIB": "BMP"}.get(picture.format or format, picture.format or format)

    bits = _bits_stated(request.data) if format in ("AVIF", "HEIF") else 0
    if format in _OF_SEVERAL and _holds_several(picture, request.data):
        request.notes.append(SEVERAL)

    def channels() -> Channels:
        load(picture, request)
        read = channels_of(picture)
        if bits <= _BITS:
            return read
        deep = deep_channels(request.data, format, bits, read)
        if deep is None:
            request.notes.append(f"its {bits} bits were read as {_BITS}")
        return deep or read

    return OpenedFile(name, picture.mode, picture.width, picture.height, described, channels)


def _holds_several(picture: Image.Image, data: bytes) -> bool:
    """Return whether a file is an animation, or of several pictures."""
    try:
        if picture.format == "GIF":  # who looks for the second picture moves to it
            picture = open_picture(data, "GIF")
        return bool(getattr(picture, "is_animated", False))
    except DECODING_FAULTS:
        return False


def _check_avif_size(request: Request) -> None:
    """Refuse a size that libavif would refuse without saying so."""
    place = request.data.find(b"ispe", 0, 4096)
    if place >= 0:
        request.check_size(*struct.unpack(">II", request.data[place + 8 : place + 16].ljust(8, b"\0")))


def _bits_stated(data: bytes) -> int:
    """Bits of a channel by an AVIF's or HEIF's own statement, 0 without one."""
    place = data.find(b"pixi", 0, _HEAD)
    counted = data[place + 8 : place + 9]  # channels, after version and flags
    return max(data[place + 9 : place + 9 + counted[0]], default=0) if place >= 0 and counted else 0


def open_picture(data: bytes, format: str) -> Image.Image:
    """Read a header.

    Args:
        format: Pillow's name of the format.

    Raises:
        One of DECODING_FAULTS: with the plugin's own reason.
    """
    with pillow_settings():
        try:
            return Image.open(io.BytesIO(data), formats=(format,))
        except DECODING_FAULTS as error:
            if is_cut_off(data):
                raise TruncatedError(f"its {format} header or what follows is not all there") from error
            if not isinstance(error, Image.UnidentifiedImageError):
                raise
            _raise_reason(data, format)
            raise OSError(f"its {format} header is damaged") from error


def is_cut_off(data: bytes) -> bool:
    """Return whether a file of chunks or boxes (WebP; AVIF, HEIF, JPEG XL) ends within one of them."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data[4:8] not in (b"ftyp", b"JXL "):
        return False
    place = 0
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length < 8:  # 0: the last one, to the end
            return False
        place += length
    return place != len(data)


def _raise_reason(data: bytes, format: str) -> None:
    """Raise what the plugin says, which ``Image.open`` keeps to itself."""
    if format == "PSD" and len(data) > _PSD_HEADER and data[22:24] != b"\0\x08":
        depth = int.from_bytes(data[22:24], "big")
        raise UnsupportedKindError(f"is of an unsupported kind: a Photoshop document of {depth} bits")
    factory = Image.OPEN[format][0]
    try:
        factory(io.BytesIO(data), "")
    except DECODING_FAULTS as error:
        raise OSError(f"its {format} header: {str(error) or type(error).__name__}") from error


def load(picture: Image.Image, request: Request) -> None:
    """Decode the pixels; what there is of them, if the caller allows that."""
    try:
        with pillow_settings() if picture.format == "ICO" else nullcontext():  # the one that warns here
            picture.load()
    except DECODING_FAULTS as error:
        if not request.allow_truncated:
            if is_cut_off(request.data):
                raise TruncatedError(str(error) or "a part is missing") from error
            raise
        picture.tile = []  # Pillow keeps what it has decoded and wants no more
        try:
            is_empty = picture.getbbox() is None
        except DECODING_FAULTS:
            is_empty = True
        if is_empty:
            raise
        request.notes.append(PARTIAL)


def channels_of(picture: Image.Image) -> Channels:
    """[H, W, C] and alpha [H, W] of a decoded picture."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16)[:, :, None], None
    if mode == "I":
        return as_uint16(np.array(picture))[:, :, None], None
    if mode == "F":
        return np.array(picture, dtype=np.float32)[:, :, None], None
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(picture)), None
    if mode in ("La", "RGBa"):
        raise UnsupportedKindError("is of an unsupported kind: colours multiplied by alpha, other than in TIFF")
    transparent = picture.has_transparency_data
    kind = "L" if mode in ("1", "L", "LA") else "RGB"
    with pillow_settings():
        values = np.array(picture.convert(kind + "A" if transparent else kind))
    if values.ndim == 2:
        return values[:, :, None], None
    if not transparent:
        return values, None
    return np.ascontiguousarray(values[:, :, :-1]), np.ascontiguousarray(values[:, :, -1])


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


def high_bytes(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16 bits as Pillow's modes of 8 bits show them."""
    return (values >> 8).astype(np.uint8)
