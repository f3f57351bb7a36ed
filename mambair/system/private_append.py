"""Appending to a file that is ours, and never to what a link planted in its place leads to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from mambair.system.cache_folder import is_own_file
from mambair.system.path_gate import open_folder


def open_to_append(path: Path) -> IO[bytes]:
    """Open a file for appending; anything there that is not a regular file of ours is replaced.

    Raises:
        OSError: a folder stands there, or the file cannot be made.
    """
    with open_folder(path.parent, make=False) as folder:
        if not is_own_file(path):
            folder.remove(path.name)
        return os.fdopen(folder.open_file(path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
