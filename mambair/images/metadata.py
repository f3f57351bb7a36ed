"""EXIF, XMP and colour profiles: read without trust, reset to upright, and what was dropped is noted."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from mambair.images.reasons import DECODING_FAULTS

ORIENTATION = 274
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))[2-8]")
_BASE_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_EXIF_IFD, _GPS_IFD, _XMP_TAG, _ICC_TAG = 34665, 34853, 700, 34675
_ICC_HEADER = 128
_DENSEST = 60_000  # pixels per inch; a JPEG holds 65535
_SIDES = {256: False, 257: True, 40962: False, 40963: True}  # tags of width and height: whether it is the height
T = TypeVar("T")


@dataclass(frozen=True)
class Metadata:
    """A picture's metadata as ``DecodedImage`` has it, and the orientation (1 to 8) that its pixels still need."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None


def of_picture(picture: Image.Image, notes: list[str]) -> Metadata:
    """Metadata of a picture whose header Pillow has read; damaged parts are dropped and noted."""
    exif: bytes | None = None
    orientation = 1
    if picture.format == "TIFF":  # Pillow turns it
        exif = _kept("EXIF", notes, lambda: _descriptive(picture.getexif()))
    elif picture.format != "PNG" or {"exif", "Raw profile type exif"} & picture.info.keys():
        # the method of PNG pictures decodes the pixels to look behind them
        tags = _kept("EXIF", notes, lambda: Image.Image.getexif(picture))
        if tags is not None:
            orientation = _kept("orientation", notes, lambda: tags.get(ORIENTATION, 1)) or 1
            exif = _kept("EXIF", notes, lambda: _encoded(tags))
            if not tags and not _has_no_tags(picture.info.get("exif") or b""):
                notes.append("damaged EXIF was dropped (no tag can be read)")
    if orientation not in range(1, 9):
        orientation = 1
    icc_profile, xmp = picture.info.get("icc_profile"), picture.info.get("xmp")
    dpi = _density(*(picture.info.get("dpi") or (None, None)))
    return Metadata(_profile(icc_profile, notes), exif, _xmp(xmp), orientation, dpi)


def of_tiff(tags: Image.Exif, icc_profile: object, xmp: object, orientation: object, notes: list[str]) -> Metadata:
    """Metadata of a TIFF that Pillow does not open."""
    return Metadata(
        _profile(icc_profile, notes),
        _kept("EXIF", notes, lambda: _descriptive(tags)),
        _xmp(xmp),
        orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1,
        _density(tags.get(282), tags.get(283), 2.54 if tags.get(296) == 3 else 1.0),
    )


def tiff_tags(data: bytes, directory: dict[int, object], *, is_big: bool, notes: list[str]) -> Image.Exif:
    """The tags of a TIFF's first picture, with the groups they point to."""
    tags = Image.Exif()
    if is_big:  # Pillow follows no group of tags there
        tags.update({tag: value for tag, value in directory.items() if tag in _BASE_TAGS})
    else:
        _kept("EXIF", notes, lambda: tags.load_from_fp(io.BytesIO(data)))
    return tags


def _kept(name: str, notes: list[str], read: Callable[[], T]) -> T | None:
    """``read()``, or None and a note where that part is damaged: it is no reason to refuse the picture."""
    try:
        return read()
    except DECODING_FAULTS as error:
        notes.append(f"damaged {name} was dropped ({' '.join(str(error).split()) or type(error).__name__})")
        return None


def _has_no_tags(exif: bytes) -> bool:
    """Return whether EXIF data is missing, or whole with an empty directory."""
    body = exif.removeprefix(b"Exif\0\0")
    start = int.from_bytes(body[4:8], "little" if body.startswith(b"II") else "big")
    return not body or (body[:4] in (b"II*\0", b"MM\0*") and body[start : start + 2] == b"\0\0")


def _profile(profile: object, notes: list[str]) -> bytes | None:
    if not isinstance(profile, bytes) or not profile:
        return None
    if len(profile) < _ICC_HEADER or profile[36:40] != b"acsp":
        notes.append("a damaged colour profile was dropped (no ICC header)")
        return None
    return profile


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
    exif[ORIENTATION] = 1
    return exif.tobytes().removeprefix(b"Exif\0\0")


def exif_of_size(exif: bytes | None, height: int, width: int) -> bytes | None:
    """EXIF data with the numbers of pixels that it names, if any, set to those of a picture."""
    if exif is None:
        return None
    tags = Image.Exif()
    try:
        tags.load(b"Exif\0\0" + exif)
        details = tags.get_ifd(_EXIF_IFD)
        named = [(place, tag) for place in (tags, details) for tag in _SIDES if tag in place]
        for place, tag in named:
            place[tag] = height if _SIDES[tag] else width
        return tags.tobytes().removeprefix(b"Exif\0\0") if named else exif
    except DECODING_FAULTS:
        return exif


def _density(across: object, down: object, factor: float = 1.0) -> tuple[float, float] | None:
    """Pixels per inch as numbers, or None if they are not two sensible ones."""
    try:
        dpi = float(across) * factor, float(down) * factor  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return None
    return dpi if all(1 < each <= _DENSEST for each in dpi) else None  # 1: no density but proportions


def _xmp(packet: object) -> bytes | None:
    if isinstance(packet, str):
        packet = packet.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet) if isinstance(packet, bytes) and packet else None
