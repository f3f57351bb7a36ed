"""Appending to a file that is ours, and never to what a link planted in its place leads to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from mambair.system.cache_folder import is_own_file


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file for appending; anything there that is not a regular file of ours is replaced.

    Raises:
        OSError: a folder stands there, or the file cannot be made.
    """
    if not is_own_file(path):
        path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "ab")
