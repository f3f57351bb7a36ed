"""Reading small files that somebody else may have written: regular files only, up to a size, JSON up to a depth."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

JSON_BYTES = 16 * 2**20
MAX_DEPTH = 32  # of objects and arrays
MAX_DIGITS = 30  # of an integer
_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
_NAMES = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file whole; a link is followed, a pipe or a device is not waited for.

    Raises:
        ValueError: it is no regular file, or has more than ``limit`` bytes.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise ValueError("it is not a regular file") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > limit:
            raise ValueError(f"it has more than {limit} bytes")
        content = file.read(status.st_size + 1)  # memory for as much is taken at once
        if len(content) > status.st_size:  # it grows, or is one of the kernel's, which have no size
            content += file.read(limit + 1 - len(content))
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content


def read_lines(path: Path, limit: int) -> list[str]:
    """Read the lines of a text file that somebody wrote: UTF-8 with or without a mark, line ends of any system.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        ValueError: see `read_bytes`.
        OSError: it cannot be read.
    """
    # not splitlines, which also splits at characters that names of files may have
    return [line.removesuffix("\r") for line in read_bytes(path, limit).decode("utf-8-sig").split("\n")]


def read_json(path: Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: see `read_bytes` and `parse_json`.
        OSError: it cannot be read.
    """
    return parse_json(read_bytes(path, limit))


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Parse one strict JSON object. The first error ends it, and the message is one line.

    Raises:
        ValueError: the text is not UTF-8, is not JSON (NaN and Infinity, which are Python's own, included), is not an
            object, holds a key twice, an integer of more than ``MAX_DIGITS`` digits or a number above all floats, or is
            nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_without_doubles,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {_NAMES.get(type(value), 'a number')}")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        children = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for each in children for child in each if isinstance(child, dict | list)]
    if level:
        raise ValueError(_TOO_DEEP)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits; at most {MAX_DIGITS} are accepted")
    return int(text)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, each in pairs:
        if key in value:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        value[key] = each
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
