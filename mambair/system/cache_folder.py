"""Cache folders for code and weights: only folders of this user that nobody else can write to."""

from __future__ import annotations

import functools
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILE_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_temporary: dict[str, tempfile.TemporaryDirectory[str]] = {}  # kept until the process ends


def private_folder(name: str) -> Path:
    """Return the cache folder ``<user cache>/mambair/<name>``; make it if needed, for this user only.

    What another user could have put into a cache is never used: if the folder, or a folder above it, belongs to another
    user or is writable by others, or if it cannot be made, a temporary folder takes its place until the process ends,
    and one warning gives the reason. A folder above may be writable by all if its sticky bit is set, as /tmp is.

    Args:
        name: a plain folder name, e.g. "native".

    Returns:
        An absolute path without links.
    """
    try:
        folder = _user_cache() / "mambair" / name
        _make_private(folder)
        folder = folder.resolve(strict=True)
        problem = _problem(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: the system knows no home folder
        problem = str(error)
    else:
        if problem is None:
            return folder
    return temporary_folder(name, problem)


def temporary_folder(name: str, problem: str) -> Path:
    """Return the folder that takes the place of a cache folder until this process ends; warn once, with the problem."""
    if name not in _temporary:
        _temporary[name] = tempfile.TemporaryDirectory(prefix=f"mambair-{name}-")
        logger.warning(
            "the cache folder cannot be used: %s; a temporary one is used until this process ends. Set "
            "XDG_CACHE_HOME to a folder of your own, or delete that one",
            problem,
        )
    return Path(_temporary[name].name).resolve()


def is_own_file(path: Path) -> bool:
    """Return whether ``path`` is a regular file of this user, under this name only: no link of either kind."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
    return is_plain and (os.name != "posix" or status.st_uid == os.getuid())


def use_private_compile_caches() -> None:
    """Set the cache folders of torch.compile and Triton to private ones where the environment names none.

    Their default for torch.compile is a folder in the shared temporary folder, which another user can make first.
    """
    for variable, name in COMPILE_CACHES.items():
        if not os.environ.get(variable):
            os.environ[variable] = str(private_folder(name))


def _user_cache() -> Path:
    """Return the folder that the system names for the caches of this user, as an absolute path."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named and Path(named).is_absolute():
        return Path(named)
    if named:
        _ignore_relative(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    if not base.is_absolute():
        raise OSError(f"the home folder is the relative path {str(base)!r}")
    return base


@functools.cache
def _ignore_relative(named: str) -> None:
    logger.warning("XDG_CACHE_HOME=%r is ignored: it must be an absolute path", named)


def _make_private(folder: Path) -> None:
    """Make a folder and its missing parents, each with mode 0700 (``Path.mkdir`` gives the mode to the last only)."""
    if not folder.is_dir():
        if folder.parent != folder:
            _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _problem(folder: Path) -> str | None:
    """Return why other users could change what is in a folder, or None. ``folder`` is absolute, without links."""
    if os.name != "posix":
        return None  # the folders of a user's profile are closed to others by their access lists
    user = os.getuid()
    for path in (folder, *folder.parents):
        status = path.stat()
        is_sticky = path != folder and status.st_mode & stat.S_ISVTX
        if status.st_uid not in ({user} if path == folder else {user, 0}):
            return f"{path} belongs to the user with the number {status.st_uid}"
        if status.st_mode & _OTHERS_WRITE and not is_sticky:
            return f"{path} can be written by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None
