"""Names that a user gives for input and output, and names of results: what each means, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mambair.images.encode import FORMAT_OF_SUFFIX
from mambair.system.console import printable
from mambair.system.errors import RequestError
from mambair.system.suggestions import did_you_mean

WITH_QUALITY = ("JPEG", "WEBP", "AVIF")
DEFAULT_FORMAT = "png"
SAME = "same"  # as a format: that of each input
_LONGEST = 255  # bytes of a name, on most file systems
_ENDINGS = max(map(len, FORMAT_OF_SUFFIX))
_DIGEST = 12  # of its characters, behind a name that was cut
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters at least: C:/ is a drive; Path makes // a /
_LIKE_AN_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}")
_WEB = ("http", "https", "ftp")


def ending_of(format: str | None, source: Path) -> str:
    """The suffix of the result of ``source`` in that format, with its dot; None is the default format.

    With ``SAME`` it is the input's own, as it is written there, or that of the default format if the input's cannot be
    written.

    Raises:
        RequestError: no such format can be written.
    """
    if format is not None and format.lower() == SAME:
        return source.suffix if source.suffix.lower() in FORMAT_OF_SUFFIX else f".{DEFAULT_FORMAT}"
    ending = "." + (DEFAULT_FORMAT if format is None else format).lower().removeprefix(".")
    if ending not in FORMAT_OF_SUFFIX:
        known = [*(each[1:] for each in FORMAT_OF_SUFFIX), SAME]
        raise RequestError(
            f"format: must be one of {', '.join(known)}, got {format!r}{did_you_mean(ending[1:], known)}"
        )
    return ending


def check_quality(quality: int | None, endings: Iterable[str]) -> None:
    """Check that a quality is from 1 to 100, and that one of the results, of these endings, has one.

    Raises:
        RequestError: it is not, or none has.
    """
    if quality is None:
        return
    if not 1 <= quality <= 100:
        raise RequestError(f"quality: must be from 1 to 100, got {quality}")
    written = sorted({ending.lower()[1:] for ending in endings})
    able = [ending[1:] for ending, format in FORMAT_OF_SUFFIX.items() if format in WITH_QUALITY]
    if written and not set(written) & set(able):
        have = "has" if len(written) == 1 else "have"
        raise RequestError(f"quality: {', '.join(written)} {have} none, only {', '.join(able)} have; leave it out")


def _address(path: Path) -> str:
    """An address as it was typed: two slashes, of which Path makes one."""
    return printable(_SCHEME.sub(r"\1://", str(path), count=1))


def refuse_addresses(source: Path, output: Path) -> None:
    """Check that the input is there, and that neither is an address or a pattern.

    Raises:
        RequestError: it is not; the message says what the name is, and what to do.
    """
    scheme = _SCHEME.match(str(output))
    if scheme is not None and not output.exists():
        raise RequestError(f"output: {_address(output)} is an address; name a folder of this machine and copy it then")
    if source.exists():
        return
    name = printable(source)
    if scheme := _SCHEME.match(str(source)):
        if scheme[1].lower() in _WEB:
            raise RequestError(f"input: {_address(source)} is an address of the web; download the file and name that")
        raise RequestError(
            f"input: {_address(source)} is an address ({scheme[1]}:), which is not read; copy the files to this "
            "machine, or mount the storage as a folder, and name that"
        )
    if source.is_symlink():
        raise RequestError(f"input: {name} is a broken link")
    if set(name) & set("*?["):
        raise RequestError(
            f"input: there is no file {name}; it looks like a pattern that the shell did not replace. Name the folder, "
            f"and give the pattern as --include {source.name!r}"
        )
    raise RequestError(f"input: there is no file or folder {name}")


def names_a_file(output: Path, source: Path) -> bool:
    """Return whether the output is the name of one result.

    Raises:
        RequestError: it looks like a file and cannot be one.
    """
    if output.is_dir():
        return False
    is_image = output.suffix.lower() in FORMAT_OF_SUFFIX
    if source.is_dir():
        if is_image and not output.exists():
            raise RequestError(f"output: {printable(output)} names a file, but the input is a folder; name a folder")
        return False
    if not is_image and _LIKE_AN_ENDING.fullmatch(output.suffix) and not output.exists():
        known = list(FORMAT_OF_SUFFIX)
        raise RequestError(
            f"output: {printable(output)} looks like a file of an unknown format; known are {', '.join(known)}"
            f"{did_you_mean(output.suffix, known)} (if it is to be a folder, make it first)"
        )
    return is_image


def full_stem(path: Path) -> str:
    """``a.jpg`` -> ``a_jpg``."""
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix else path.stem


def file_name(stem: str, suffix: str, ending: str) -> str:
    """The name of a result, see `result_stem`."""
    return result_stem(stem, suffix) + ending


def result_stem(stem: str, suffix: str) -> str:
    """``stem + suffix``; where no file could have that name, as much as fits and a digest of all of ``stem``."""
    room = _LONGEST - _ENDINGS - len(os.fsencode(suffix))
    name = os.fsencode(stem)
    if len(name) <= room:
        return stem + suffix
    digest = hashlib.sha256(name).hexdigest()[:_DIGEST]
    kept = stem
    while len(os.fsencode(kept)) > room - _DIGEST - 1:
        kept = kept[:-1]
    return f"{kept}~{digest}{suffix}"
