"""Writing files so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from mambair.system.path_gate import IS_WINDOWS, Folder, open_folder

_STEM, _SUFFIX = 40, 16  # characters of the name that a temporary name keeps
_UNIQUE = re.compile(rf"\..{{0,{_STEM}}}\.[0-9a-f]{{32}}\.tmp(\..{{0,{_SUFFIX - 1}}})?", re.DOTALL)


@contextmanager
def atomic_stream(
    path: str | os.PathLike[str],
    *,
    within: Path | None = None,
    tag: str | None = None,
    complete: Callable[[BinaryIO], None] | None = None,
) -> Iterator[BinaryIO]:
    """Yield a new file, open for writing; when the block ends well, flush it to disk and rename it to ``path``.

    If the block raises, the new file is removed and ``path`` stays as it was. Missing parent folders are made. What
    stands at the temporary name is removed, never written to, and a link at ``path`` is replaced, not followed.

    Args:
        path: where the file is to appear.
        within: a folder that no link on the way to ``path`` may lead out of.
        tag: makes the temporary name the same each time, so that what a killed process left is removed by the next
            one; only for who has made sure that nobody else writes ``path``. By default it is unique.
        complete: called with the file when all is in it, before it takes its name.

    Raises:
        UnsafePathError: a link leads out of ``within``, or a folder is in the way.
        OSError: the file system refuses.
    """
    target = Path(path)
    name = _temporary_name(target, tag)
    with open_folder(target.parent, within=within) as folder:
        folder.refuse_folder(target.name)
        descriptor = folder.create(name)
        status = os.fstat(descriptor)
        with _closed_at_last(descriptor) as close:
            try:
                with os.fdopen(descriptor, "w+b", closefd=False) as stream:
                    yield stream
                    stream.flush()
                    if complete is not None:
                        complete(stream)
                _finish(folder, name, target.name, descriptor, close)
            finally:
                close()
                folder.remove(name, status)


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, within: Path | None = None) -> Iterator[Path]:
    """As `atomic_stream`, for writers that need a path: yield the temporary one, whose name nobody can foresee.

    It starts with a dot, lies beside ``path`` and keeps its suffix, as encoders choose the format by it.

    Args:
        path: where the file is to appear.
        within: a folder that no link on the way to ``path`` may lead out of.

    Raises:
        UnsafePathError: a link leads out of ``within``, the temporary file was replaced by something else than a file,
            or a folder is in the way.
        OSError: the file system refuses.
    """
    target = Path(path)
    name = _temporary_name(target, None)
    with open_folder(target.parent, within=within) as folder:
        folder.refuse_folder(target.name)
        descriptor = folder.create(name)
        mode = os.fstat(descriptor).st_mode  # that of a new file here; some writers replace it by a private one
        os.close(descriptor)
        try:
            yield target.with_name(name)
            # only Windows flushes no file that is open for reading
            descriptor = folder.open_file(name, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
            with _closed_at_last(descriptor) as close:
                if not IS_WINDOWS:
                    os.fchmod(descriptor, mode)
                _finish(folder, name, target.name, descriptor, close)
        finally:
            folder.remove(name)


@contextmanager
def _closed_at_last(descriptor: int) -> Iterator[Callable[[], None]]:
    """Close a descriptor at the end of the block, unless the function that is yielded has closed it."""
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        yield stack.close


def _finish(folder: Folder, name: str, target: str, descriptor: int, close: Callable[[], None]) -> None:
    """Flush a file to disk and rename it; while it is open, no other file can have its inode."""
    os.fsync(descriptor)
    status = os.fstat(descriptor)
    if IS_WINDOWS:  # Windows renames no file that is open
        close()
    folder.rename(name, target, status)
    folder.sync()


def is_left_over(name: str) -> bool:
    """Return whether a file's name is one that only `atomic_path` and `atomic_stream` give, while they write."""
    return _UNIQUE.fullmatch(name) is not None


def _temporary_name(target: Path, tag: str | None) -> str:
    return f".{target.stem[:_STEM]}.{tag or uuid.uuid4().hex}.tmp{target.suffix[:_SUFFIX]}"
