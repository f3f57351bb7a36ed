"""Reading small files that somebody else may have written: regular files only, up to a size, JSON up to a depth."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

JSON_BYTES = 16 * 2**20


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file whole; a link is followed, a pipe or a device is not waited for.

    Raises:
        ValueError: it is no regular file, or has more than ``limit`` bytes.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(limit + 1)
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


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """Read a file of JSON.

    Raises:
        ValueError: see `read_bytes` and `parse_json`.
        OSError: it cannot be read.
    """
    return parse_json(read_bytes(path, limit))


def parse_json(content: bytes | str) -> Any:
    """Parse strict JSON: the constants NaN and Infinity, which are Python's own, are errors, and so is 1e999.

    Raises:
        ValueError: it is not JSON or not UTF-8, is nested too deeply, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
