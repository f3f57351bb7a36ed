"""Writing files so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, tag: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, flush it to disk and rename it to ``path``.

    The temporary name starts with a dot and keeps the suffix, as encoders choose the format by it. If the block
    raises, the temporary file is removed and ``path`` stays as it was. Missing parent folders are made.

    Args:
        path: where the file is to appear.
        tag: makes the temporary name the same each time, so that what a killed process left is overwritten by the
            next one; only for who has made sure that nobody else writes ``path``. By default it is unique.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:40]}.{tag or uuid.uuid4().hex[:12]}.tmp{target.suffix}")
    temporary.touch(exist_ok=tag is not None)
    permissions = temporary.stat().st_mode  # those of a new file here; some writers replace it by a private one
    try:
        yield temporary
        temporary.chmod(permissions)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no folder handles and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
