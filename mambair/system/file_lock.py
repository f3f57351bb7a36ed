"""Locks between processes on open files; the system releases them when the process dies, however it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mambair.system.path_gate import open_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

_PATIENCE = 3600.0  # seconds; a large file over a slow line takes as long
_PAUSES = (0.001, 0.1)  # seconds between attempts: at first, and at most
# Windows locks bytes, which nobody else can read or write then: one behind the content of any file that is locked here
_BYTE = 2**31 - 2


def try_lock(descriptor: int) -> bool:
    """Lock an open file; return False if another process, or another opening of this one, holds its lock.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _lock_byte(descriptor, "LK_NBLCK")
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release the lock of an open file; closing the file does so, too."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    else:
        _lock_byte(descriptor, "LK_UNLCK")


@contextlib.contextmanager
def locked(descriptor: int, *, seconds: float | None = None, name: str | None = None) -> Iterator[None]:
    """Hold the lock of an open file during the block; wait for it.

    Args:
        descriptor: of the file.
        seconds: how long to wait at most; None waits until the others are done.
        name: of the file, for a line in the log if there is a wait.

    Raises:
        TimeoutError: another process holds it for longer.
        OSError: the file system has no locks.
    """
    give_up = None if seconds is None else time.monotonic() + seconds
    pause, longest = _PAUSES
    while not try_lock(descriptor):
        if name is not None:
            logger.info("waiting for another process, which holds %s", name)
            name = None
        if give_up is not None and time.monotonic() > give_up:
            raise TimeoutError(f"another process has held its lock for {seconds:.0f} s; end that process")
        time.sleep(pause)
        pause = min(2 * pause, longest)
    try:
        yield
    finally:
        unlock(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, and make the others wait, for an hour at most; a line says so.

    Args:
        path: an empty file; it is made if it is missing, and stays.

    Raises:
        OSError: it cannot be made or locked (UnsafePathError: something else is there; TimeoutError: see `locked`).
    """
    with open_folder(path.parent) as folder:
        descriptor = folder.open_file(path.name, os.O_RDWR | os.O_CREAT)
    try:
        with locked(descriptor, seconds=_PATIENCE, name=str(path)):
            yield
    finally:
        os.close(descriptor)


def _lock_byte(descriptor: int, mode: str) -> None:
    import msvcrt

    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, getattr(msvcrt, mode), 1)  # type: ignore[attr-defined]
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
