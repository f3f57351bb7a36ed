"""What can be known of the output folder before anything is loaded or computed."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from mambair.folders.plan import Plan
from mambair.images.encode import FORMAT_OF_SUFFIX, can_write
from mambair.system.console import printable
from mambair.system.errors import RequestError
from mambair.system.path_gate import open_folder

_ATTEMPTS = 20
_LEAST = 2**20  # bytes without which no result fits


@contextlib.contextmanager
def checked_output(plan: Plan, manifest: Path | None = None) -> Iterator[list[str]]:
    """Check that results can be written, by writing a file in the output folder; yield notes for the user, a line each.

    At the end of the block, the folders that were made for it are removed where they are still empty.

    Args:
        plan: what is to be written.
        manifest: a file that is to be written elsewhere.

    Raises:
        RequestError: the folder cannot be made or written in, its disk is full, or this Pillow cannot write the format.
    """
    for ending in {job.target.suffix.lower() for job in plan.jobs}:
        if not can_write(FORMAT_OF_SUFFIX[ending]):
            raise RequestError(f"format: this installation of Pillow cannot write {ending[1:]}; use png or webp")
    folders = {"output": plan.folder} | ({} if manifest is None else {"manifest": manifest.parent})
    missing = [path for folder in folders.values() for path in (folder, *folder.parents) if not path.exists()]
    try:
        for name, folder in folders.items():
            _write(name, folder)
        yield _notes(plan)
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # not made, or in use
                path.rmdir()


def _write(name: str, folder: Path) -> None:
    """Make a file and remove it; ``name`` is what the folder is for."""
    file_name, attempts = f".{uuid.uuid4().hex}.tmp", _ATTEMPTS
    while True:
        try:
            with open_folder(folder) as opened, os.fdopen(opened.create(file_name), "wb") as file:
                opened.remove(file_name)
                file.write(b"\0")
            return
        except OSError as error:
            attempts -= 1
            if attempts and isinstance(error, FileNotFoundError):  # another process made the folder, and removed it
                continue
            reason = _reason(folder, error)
            raise RequestError(f"{name}: nothing can be written in {printable(folder)}: {reason}") from None


def _notes(plan: Plan) -> list[str]:
    free = shutil.disk_usage(plan.folder).free
    if free < _LEAST:
        raise RequestError(f"output: the disk of {printable(plan.folder)} is full ({free} bytes are free)")
    needed = sum(_size(job.source) for job in plan.jobs)
    if needed <= free:
        return []
    return [f"the inputs have {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {printable(plan.folder)}"]


def _reason(folder: Path, error: OSError) -> str:
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            return f"{printable(path)} is a broken link"
        if path.exists() and not path.is_dir():
            return f"{printable(path)} is not a folder"
    return error.strerror or str(error)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
