"""Messages of decoders besides their errors: warnings, log records, libtiff's lines. Each is kept with its file."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from PIL import Image

_MOST_LINES, _LONGEST_LINE = 5, 200
_NOT_OF_THE_FILE = "Interlace handling should be turned on"  # libpng to the program that calls it
_TiffHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

_collecting = threading.local()
_pillow = threading.Lock()
_kept_alive: list[Any] = []  # callbacks that libtiff points to


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the messages of the decoders that run in this thread; other threads are not affected.

    Yields:
        The lines, which grow while the block runs: at most a few, each once.
    """
    _listen()
    before = getattr(_collecting, "lines", None)
    _collecting.lines = []
    try:
        yield _collecting.lines
    finally:
        _collecting.lines = before


@contextmanager
def pillow_settings() -> Iterator[None]:
    """Run Pillow's quick parts (headers, metadata) without its limit of pixels; its warnings become messages.

    Both are settings of the process, so this holds a lock: decode pixels outside of it.
    """
    with _pillow:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    yield
                finally:
                    foreign = [warning for warning in caught if not _is_pillows(warning.filename)]
                    for warning in caught:
                        if warning not in foreign:
                            _say(str(warning.message))
            for warning in foreign:  # of another thread
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_pillows(filename: str) -> bool:
    return os.sep + "PIL" + os.sep in filename


def _say(line: str) -> bool:
    """Keep a message if this thread collects them."""
    lines: list[str] | None = getattr(_collecting, "lines", None)
    if lines is None:
        return False
    line = " ".join(line.split())[:_LONGEST_LINE]
    if line and line not in lines and _NOT_OF_THE_FILE not in line and len(lines) < _MOST_LINES:
        lines.append(line)
    return True


@lru_cache(maxsize=1)
def _listen() -> None:
    """Take the place of the loggers' and of libtiff's own output, where this thread collects."""
    for name in ("tifffile", "imagecodecs", "PIL.TiffImagePlugin"):
        logging.getLogger(name).addFilter(lambda record: not _say(record.getMessage()))
    # the layout of a C argument list that is passed on as one pointer
    if sys.platform in ("linux", "darwin") and platform.machine() in ("x86_64", "aarch64", "arm64"):
        try:
            libtiff = ctypes.CDLL(Image.core.__file__)  # finds the libtiff that Pillow is linked with
            format_line = ctypes.CDLL(None).vsnprintf
            for setter in (libtiff.TIFFSetErrorHandler, libtiff.TIFFSetWarningHandler):
                _replace_handler(setter, format_line)
        except (OSError, AttributeError):
            return  # a Pillow without libtiff, or with a hidden one


def _replace_handler(setter: Any, format_line: Any) -> None:
    previous: list[Any] = []

    def handle(module: bytes | None, template: bytes, arguments: int) -> None:
        if getattr(_collecting, "lines", None) is None:
            if previous:
                previous[0](module, template, arguments)
            return
        line = ctypes.create_string_buffer(_LONGEST_LINE)
        format_line(line, ctypes.c_size_t(_LONGEST_LINE), template, ctypes.c_void_p(arguments))
        _say(f"{(module or b'libtiff').decode(errors='replace')}: {line.value.decode(errors='replace')}")

    callback = _TiffHandler(handle)
    _kept_alive.append(callback)
    setter.argtypes, setter.restype = [_TiffHandler], ctypes.c_void_p
    address = setter(callback)
    if address:
        previous.append(_TiffHandler(address))
