"""Claims on results: whoever holds the lock on a small file works on that result, and dying lets go of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from mambair.system.file_lock import try_lock
from mambair.system.jsonl import MAX_LINE, parse_object
from mambair.system.path_gate import IS_WINDOWS, Folder, open_folder, parts_below

FOLDER, CLAIMS = ".mambair", "claims"
_ATTEMPTS = 500  # each is lost to another process that releases the same claim, or removes the folder of claims
_PAUSE = 0.002  # seconds


class Claim:
    """The right to make one result, until ``release``; the system releases it when the process dies, however it dies.

    The lock is the system's, on a file named by the result, so no claim can be left over: what a dead
    process leaves is a file that nobody has locked.

    Attributes:
        tag: names the temporary file of the result, so that the next holder of the claim removes it.
        intent: what the last holder, if it died, had written down with ``intend``; None if it had not come so far.
    """

    def __init__(self, folder: Folder, name: str, descriptor: int, tag: str) -> None:
        self._folder, self._name, self._descriptor, self.tag = folder, name, descriptor, tag
        self.intent = parse_object(os.read(descriptor, MAX_LINE))  # None also if it is empty, or half written

    def intend(self, content: dict[str, Any]) -> None:
        """Write down, durably, what is about to be true once a file has its name."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(content, allow_nan=False).encode("ascii"))
        os.fsync(self._descriptor)

    def release(self) -> None:
        """Let go of the claim and remove its file."""
        with self._folder:
            if IS_WINDOWS:  # there, a file that is open cannot be removed
                os.close(self._descriptor)
                with contextlib.suppress(OSError):
                    self._folder.remove(self._name)
            else:  # removed while it is locked: who has opened it in between finds it gone and starts anew
                try:
                    self._folder.remove(self._name)
                finally:
                    os.close(self._descriptor)


def check_claims(output: Path) -> None:
    """Raise UnsafePathError if a link leads the claims out of the output folder."""
    parts_below(output / FOLDER / CLAIMS, output)


def try_claim(output: Path, name: str) -> Claim | None:
    """Claim the result ``name``, or None if another process, or another thread of this one, holds it.

    Args:
        output: the output folder, in whose hidden folder claims lie; all who share the work use the same.
        name: of the result, any text.

    Raises:
        OSError: the file system has no locks, or the file cannot be made (UnsafePathError: something else is there).
    """
    tag = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    file = f"{tag}.claim"
    reason = "it is removed again and again"
    for _ in range(_ATTEMPTS):
        try:
            with contextlib.ExitStack() as stack:
                folder = stack.enter_context(open_folder(output / FOLDER / CLAIMS, within=output))
                descriptor = folder.open_file(file, os.O_RDWR | os.O_CREAT)
                stack.callback(os.close, descriptor)
                if not try_lock(descriptor):
                    return None
                if folder.has(file, os.fstat(descriptor)):
                    claim = Claim(folder, file, descriptor, tag)
                    stack.pop_all()
                    return claim
        except FileNotFoundError as error:  # the folder was removed in between, by who was done, or cannot be made
            reason = str(error)
        time.sleep(_PAUSE)  # its holder released, so removed it, between our opening and our lock
    raise OSError(f"the claim {output / FOLDER / CLAIMS / file} cannot be made: {reason}")


def remove_folder(output: Path) -> None:
    """Tidy up once all work is done; a folder that others still use stays."""
    with contextlib.suppress(OSError):  # not empty, or gone already
        with open_folder(output / FOLDER, within=output, make=False) as folder:
            folder.remove_folder(CLAIMS)
        with open_folder(output, make=False) as folder:
            folder.remove_folder(FOLDER)
