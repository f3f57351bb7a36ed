"""Image files in and out: the one module that reads and writes them, and what it keeps of them.

Read: the formats of ``formats.SUFFIXES`` (HEIF and JPEG XL with our extras); the content decides, not the name, except
for TGA. Kept: 8 and 16 bits exactly (PNG, TIFF, PPM/PGM), float32 (TIFF), grey or colour, alpha, ICC profile, EXIF and
XMP. Changed: palettes become RGB or RGBA, one-bit becomes grey, CMYK becomes sRGB (through its profile if it has one),
other depths become the next larger of 8 and 16 bits; colours multiplied by alpha are divided by it; EXIF orientation
is applied to the pixels and then reset. Of animations and several pages the first picture is read, with a note. A
truncated file is an error, unless the caller takes what there is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mambair.images.chatter import collected
from mambair.images.decode import decode, decode_size
from mambair.images.decoded_image import DecodedImage, ImageFileError
from mambair.images.encode import FORMAT_OF_SUFFIX, STREAMED, check_fits, open_writer
from mambair.images.formats import SUFFIXES
from mambair.images.jpeg_quality import jpeg_quality
from mambair.images.png_rows import first_rows
from mambair.images.reasons import DECODING_FAULTS, reason_of
from mambair.images.stream_writers import ImageSpec, StripWriter, spec_of
from mambair.system.atomic_file import atomic_stream
from mambair.system.bounded_reader import read_bytes

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "WRITABLE_SUFFIXES",
    "DecodedImage",
    "EncodedImage",
    "ImageFileError",
    "ImageSpec",
    "StripWriter",
    "check_writable",
    "is_streamed",
    "list_images",
    "natural_key",
    "open_strips",
    "read_encoded",
    "read_image",
    "read_rgb",
    "read_size",
    "spec_of",
    "write_image",
]

WRITABLE_SUFFIXES = tuple(FORMAT_OF_SUFFIX)
MAX_PIXELS = 2**28
"""Pictures above this many pixels (16384 x 16384) are refused unless the caller asks for more."""
_MOST_OF_A_PIXEL, _MOST_BESIDE = 16, 2**28  # bytes of a file: four floats, and metadata; more is not read


class EncodedImage:
    """The content of an image file, and the name that messages call it by.

    Args:
        path: the name; nothing needs to be there.
        data: the content.
        max_pixels: refuse pictures with more, before decoding them.
        allow_truncated: take what there is of a damaged picture; what is missing is black, and noted.
    """

    def __init__(self, path: Path, data: bytes, max_pixels: int = MAX_PIXELS, *, allow_truncated: bool = False) -> None:
        self.path = path
        self._data = data
        self._max_pixels = max_pixels
        self._allow_truncated = allow_truncated

    @property
    def content(self) -> bytes:
        """The file, byte for byte."""
        return self._data

    def sha256(self) -> str:
        """The SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self._data).hexdigest()

    def jpeg_quality(self) -> int | None:
        """The quality that a JPEG was saved with, see `mambair.images.jpeg_quality`; None for other files."""
        return jpeg_quality(self._data)

    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture, from the header alone.

        Raises:
            ImageFileError: the header is damaged.
        """
        with _named(self.path):
            return decode_size(
                self._data,
                self._max_pixels,
                suffix=self.path.suffix.lower(),
                allow_truncated=self._allow_truncated,
            )

    def decoded(self) -> DecodedImage:
        """The whole picture, upright.

        Raises:
            ImageFileError: the content is damaged.
        """
        with _named(self.path) as messages:
            image = decode(
                self._data,
                self._max_pixels,
                suffix=self.path.suffix.lower(),
                allow_truncated=self._allow_truncated,
            )
        return replace(image, notes=(*image.notes, *messages)) if messages else image

    def rows(self, count: int) -> NDArray[np.generic]:
        """The first ``count`` rows [count, W, 1 or 3], or more; plain PNGs are decoded no further.

        Raises:
            ImageFileError: the content is damaged.
        """
        self.size()  # refuses too many pixels
        with _named(self.path):
            pixels = first_rows(self._data, count)
        return self.decoded().pixels if pixels is None else pixels


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, allow_truncated: bool = False
) -> DecodedImage:
    """Read a picture, upright, at the depth its file has.

    Args:
        path: the file; its suffix does not matter.
        max_pixels: refuse pictures with more, before decoding them.
        allow_truncated: take what there is of a damaged picture; what is missing is black, and ``notes`` says so.

    Raises:
        ImageFileError: the file cannot be read (missing, no permission, a folder), is empty, is no image, is damaged,
            truncated, too large or of a kind that is not supported. The message names it and says why.
    """
    return read_encoded(path, max_pixels=max_pixels, allow_truncated=allow_truncated).decoded()


def read_encoded(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, allow_truncated: bool = False
) -> EncodedImage:
    """Read a picture's file, to be decoded, in whole or in part, when its pixels are asked for.

    Args:
        path, max_pixels, allow_truncated: see ``read_image``.

    Raises:
        ImageFileError: the file cannot be read, or is empty.
    """
    path = Path(path)
    data = _read_bytes(path, _MOST_BESIDE + _MOST_OF_A_PIXEL * max_pixels)
    return EncodedImage(path, data, max_pixels, allow_truncated=allow_truncated)


def read_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that ``read_image`` would give, without decoding the pixels.

    Raises:
        ImageFileError: as ``read_image`` does, as far as the header shows it.
    """
    return read_encoded(path, max_pixels=max_pixels).size()


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """Pixels only, as [H, W, 3] RGB; uint8, uint16 or float32 as in the file. Grey is repeated, alpha left out.

    Raises:
        ImageFileError: as ``read_image`` does.
    """
    return read_image(path).rgb()


def write_image(
    path: str | os.PathLike[str], image: DecodedImage, *, quality: int | None = None, within: Path | None = None
) -> None:
    """Write a picture with its metadata; the suffix says the format, and the file appears only when it is complete.

    PNG holds 8 and 16 bits, TIFF also float32, both with alpha; PPM and PGM 8 and 16 bits without alpha; JPEG and BMP
    8 bits without alpha, WebP and AVIF 8 bits with alpha (grey becomes RGB there, without its profile). BMP, PPM and
    PGM keep no metadata; the magic number of the latter two says grey or colour, whichever the suffix is.

    Args:
        path: where to; missing folders are made.
        image: pixels as ``DecodedImage`` describes them.
        quality: 1 to 100 for JPEG, WebP and AVIF; by default 95 for JPEG, 90 for AVIF, and lossless for WebP.
        within: a folder that no link on the way to ``path`` may lead out of.

    Raises:
        ImageFileError: unknown suffix, or a format that cannot hold this mode, dtype or size.
        OSError: the file system refuses (UnsafePathError: a link or a folder is in the way).
    """
    with open_strips(path, spec_of(image), quality=quality, within=within) as writer:
        writer.write(image.interleaved())


@contextmanager
def open_strips(
    path: str | os.PathLike[str],
    spec: ImageSpec,
    *,
    quality: int | None = None,
    within: Path | None = None,
    tag: str | None = None,
    complete: Callable[[BinaryIO], None] | None = None,
) -> Iterator[StripWriter]:
    """Write a picture whose rows come in one after the other, from top to bottom, as ``write_image`` would.

    PNG, TIFF, PPM and PGM are encoded on the way, in memory that does not grow with the picture; the others are
    collected first. The file appears when the block ends well; all rows must have been given.

    Args:
        path: where to; missing folders are made.
        spec: what the rows will be.
        quality: see ``write_image``.
        within, tag, complete: see ``atomic_stream``.

    Raises:
        ImageFileError: as ``write_image``, before anything is written.
        OSError: the file system refuses (UnsafePathError: a link or a folder is in the way).
    """
    path = Path(path)
    format = check_writable(path, spec, quality)
    with atomic_stream(path, within=within, tag=tag, complete=complete) as stream:
        writer = open_writer(stream, format, spec, quality)
        yield writer
        writer.close()


def is_streamed(path: str | os.PathLike[str]) -> bool:
    """Whether ``open_strips`` encodes a picture of that name on the way, rather than collecting it first."""
    return FORMAT_OF_SUFFIX.get(Path(path).suffix.lower()) in STREAMED


def check_writable(path: str | os.PathLike[str], spec: ImageSpec, quality: int | None = None) -> str:
    """The name of the format in which ``path`` will hold such a picture.

    Raises:
        ImageFileError: unknown suffix, a quality out of range, or a format that cannot hold this.
    """
    path = Path(path)
    format = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if format is None:
        raise ImageFileError(f"{path}: the suffix must be one of {', '.join(WRITABLE_SUFFIXES)}")
    if quality is not None and not 1 <= quality <= 100:
        raise ImageFileError(f"{path}: quality must be from 1 to 100, got {quality}")
    try:
        check_fits(spec, format)
    except ImageFileError as error:
        raise ImageFileError(f"{path}: {error}") from None
    return format


def list_images(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    unreadable: Callable[[OSError], None] | None = None,
    linked: Callable[[Path], None] | None = None,
    passed_over: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Files with an image suffix, in natural order (``2.png`` before ``10.png``), hidden ones left out.

    Broken links are listed, so that reading them can report them; linked folders are not walked.

    Args:
        folder: where to look.
        recursive: also in the folders below.
        unreadable: called with the error for each folder that cannot be listed; by default those are passed over.
        linked: called with each link to a folder that is not walked.
        passed_over: called with each file that is not hidden and has no ending of an image.

    Raises:
        ImageFileError: ``folder`` is missing or no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageFileError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        if linked is not None:
            for path in (Path(parent, name) for name in folders):
                if path.is_symlink():
                    linked(path)
        for name in names:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122, ten thousand at once
                found.append(Path(parent, name))
            elif passed_over is not None:
                passed_over(Path(parent, name))
    return sorted(found, key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which runs of ASCII digits count as numbers; different names have different keys."""
    parts: list[tuple[int, int, str]] = []
    for part in re.findall(r"[0-9]+|[^0-9]+", name):
        digits = part.lstrip("0") if part[0] in "0123456789" else None
        # the longer of two numbers is the larger, and no number is too long
        parts.append((1, 0, part) if digits is None else (0, len(digits), digits))
    return [*parts, (-1, 0, name)]


@contextmanager
def _named(path: Path) -> Iterator[list[str]]:
    """Turn an error of a decoder into one that names the file and the reason; give the decoders' messages."""
    with collected() as messages:
        try:
            yield messages
        except ImageFileError:
            raise
        except ImportError as error:
            raise ImageFileError(
                f"{path}: is of 16 bits or float, which is read with tifffile and imagecodecs, and they cannot be "
                f"imported ({error}): pip install tifffile imagecodecs"
            ) from error
        except DECODING_FAULTS as error:
            said = f"; {'; '.join(messages)}" if messages else ""
            raise ImageFileError(f"{path}: {reason_of(error)}{said}") from error


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        if path.is_dir():
            raise ImageFileError(f"{path}: is a folder, not an image file")
        data = read_bytes(path, most)
    except ValueError as error:
        raise ImageFileError(f"{path}: {str(error).removeprefix('it ')}") from None
    except FileNotFoundError:
        reason = "is a broken link" if path.is_symlink() else "no such file"
        raise ImageFileError(f"{path}: {reason}") from None
    except PermissionError:
        raise ImageFileError(f"{path}: no permission to read it") from None
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise ImageFileError(f"{path}: is empty (0 bytes)")
    return data
