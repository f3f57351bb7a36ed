"""Claims on results: whoever holds the lock on a small file works on that result, and dying lets go of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FOLDER = ".mambair"


class Claim:
    """The right to make one result, until ``release``; the system releases it when the process dies, however it dies.

    The lock is the system's (``flock``), on a file named by the result, so no claim can be left over: what a dead
    process leaves is a file that nobody has locked.

    Attributes:
        tag: names the temporary file of the result, so that the next holder of the claim overwrites it.
        intent: what the last holder, if it died, had written down with ``intend``; None if it had not come so far.
    """

    def __init__(self, path: Path, descriptor: int, tag: str) -> None:
        self._path, self._descriptor, self.tag = path, descriptor, tag
        self.intent = self._read()

    def intend(self, content: dict[str, Any]) -> None:
        """Write down, durably, what is about to be true once a file has its name."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(content).encode("ascii"))
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let go of the claim and remove its file."""
        if sys.platform == "win32":  # there, a file that is open cannot be removed
            os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self._path.unlink()
        else:  # removed while it is locked: who has opened it in between finds it gone and starts anew
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads(os.read(self._descriptor, os.fstat(self._descriptor).st_size))
        except ValueError:  # empty, or half written
            return None
        return content if isinstance(content, dict) else None


def try_claim(folder: Path, name: str) -> Claim | None:
    """Claim the result ``name``, or None if another process, or another thread of this one, holds it.

    Args:
        folder: where claims lie; all who share the work use the same.
        name: of the result, any text.

    Raises:
        OSError: the file system has no locks, or refuses to make the file.
    """
    tag = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    path = folder / f"{tag}.claim"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except (FileNotFoundError, FileExistsError):
            if folder.exists() and not folder.is_dir():
                raise
            continue  # the folder was removed in between, by who was done
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            return Claim(path, descriptor, tag)
        os.close(descriptor)  # its holder released, so removed it, between our opening and our lock


def remove_folder(folder: Path) -> None:
    """Tidy up once all work is done; a folder that others still use stays."""
    for path in (folder, folder.parent):
        try:
            path.rmdir()
        except OSError:  # not empty, or gone already
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
