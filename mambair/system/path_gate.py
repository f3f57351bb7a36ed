"""The gate to folders that strangers may have filled: no link is followed, and only regular files are opened.

A folder is held by its descriptor where the system has such calls (``dir_fd``), so that what is done in it is done in
it, whatever happens to its path meanwhile. On Windows the folder and each name in it are checked before and after use.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

IS_WINDOWS = os.name == "nt"
_HAS_DESCRIPTORS = {os.open, os.stat, os.mkdir, os.rmdir, os.unlink, os.rename} <= os.supports_dir_fd
# O_NONBLOCK: a pipe that takes the place of a file is not waited for
_FOLLOWS_LINKS = not hasattr(os, "O_NOFOLLOW")
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_AS_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_JUNCTION = 0xA0000003  # of Windows: a folder that is another one's; `stat.S_ISLNK` does not know it
# what Windows takes for a device (also with an ending), for a stream of a file, or cuts
_DEVICES = r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])"
_RESERVED = re.compile(
    rf"{_DEVICES} *(?:\..*)?|.*[. ]|.*[<>:\"/\\|?*\x00-\x1f].*",
    re.IGNORECASE | re.DOTALL,
)
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a regular file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnsafePathError(OSError):
    """A name is taken by something that must not be written to; the message says by what, and what to do."""


class Folder:
    """A folder that is open, see `open_folder`; names in it are plain, without separators.

    Attributes:
        path: for messages.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path, self._descriptor = path, descriptor
        self._status = path.stat() if descriptor is None else None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; the files that were opened in it stay open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def enter(self, name: str, *, make: bool) -> Folder:
        """Open a folder in this one, which is made if it is missing and ``make`` is true.

        Raises:
            UnsafePathError: ``name`` is a link or no folder.
            OSError: it cannot be made or opened.
        """
        with self._named(name):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._place(name), dir_fd=self._descriptor)
            self._refuse(name, stat.S_IFDIR)
            if not _HAS_DESCRIPTORS:
                return Folder(self.path / name, None)
            return Folder(self.path / name, os.open(name, _AS_FOLDER | _SAFELY, dir_fd=self._descriptor))

    def open_file(self, name: str, flags: int) -> int:
        """Open a regular file and return its descriptor.

        Args:
            name: a new file with ``O_CREAT``, which has the usual permissions.
            flags: of ``os.open``.

        Raises:
            UnsafePathError: ``name`` is a link, has a second name (a hard link), or is no regular file.
            OSError: it cannot be opened.
        """
        self._refuse(name, stat.S_IFREG)
        with self._named(name):
            descriptor = os.open(self._place(name), flags | _SAFELY, 0o666, dir_fd=self._descriptor)
        status = os.fstat(descriptor)
        problem = None
        if not stat.S_ISREG(status.st_mode):
            problem = "is no regular file"
        elif status.st_nlink > 1:
            problem = "is a hard link to another file"
        elif _FOLLOWS_LINKS and not self.has(name, status):
            problem = "became a link to another file while it was opened"
        if problem is None:
            return descriptor
        os.close(descriptor)
        raise UnsafePathError(f"{self.path / name} {problem}; remove it")

    def create(self, name: str) -> int:
        """Create a file and return its descriptor, open for reading and writing; a file or link of that name goes.

        Raises:
            UnsafePathError: ``name`` is a folder.
            OSError: it cannot be made.
        """
        if self.status(name) is not None:
            self.refuse_folder(name)
            os.unlink(self._place(name), dir_fd=self._descriptor)
        return self.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def rename(self, name: str, target: str, status: os.stat_result) -> None:
        """Give a file its final name; a file or link of that name is replaced.

        Args:
            name, target: present and future name.
            status: of the file that was written; keep it open, so that its inode stays its own.

        Raises:
            UnsafePathError: ``name`` is another file by now, or ``target`` is a folder.
            OSError: the file cannot be renamed.
        """
        if not self.has(name, status):
            raise UnsafePathError(f"{self.path / name} was replaced while it was written; the file there is not used")
        self.refuse_folder(target)
        places = self._place(name), self._place(target)
        os.replace(*places, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str, status: os.stat_result | None = None) -> None:
        """Remove a file or a link, if it is there; with ``status`` only that file."""
        with contextlib.suppress(FileNotFoundError):
            if status is None or self.has(name, status):
                os.unlink(self._place(name), dir_fd=self._descriptor)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder.

        Raises:
            OSError: it is not empty, missing, or something else.
        """
        os.rmdir(self._place(name), dir_fd=self._descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """The status of a name, of a link its own; None if there is nothing."""
        try:
            return os.stat(self._place(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def has(self, name: str, status: os.stat_result) -> bool:
        """Return whether ``name`` is the file of that status."""
        present = self.status(name)
        return present is not None and os.path.samestat(present, status)

    def refuse_folder(self, name: str) -> None:
        """Raise UnsafePathError if ``name`` is a folder, which no file can replace, or can be no file's name here."""
        self._refuse_reserved(name)
        present = self.status(name)
        if present is not None and stat.S_ISDIR(present.st_mode):
            raise UnsafePathError(f"{self.path / name} is a folder, where a file is to be written; remove or rename it")

    def sync(self) -> None:
        """Make renames durable; Windows has no descriptors of folders and needs none."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Let the errors of the system name the whole path."""
        try:
            yield
        except OSError as error:
            if error.filename is not None:
                error.filename = str(self.path / name)
            raise

    def _place(self, name: str) -> str:
        if self._status is None:
            return name
        if not os.path.samestat(self.path.stat(), self._status):
            raise UnsafePathError(f"{self.path} was replaced by another folder meanwhile; nothing is written there")
        return str(self.path / name)

    def _refuse_reserved(self, name: str) -> None:
        if is_reserved(name):
            raise UnsafePathError(
                f"{self.path / name} cannot be a file on Windows, which reserves that name; change it"
            )

    def _refuse(self, name: str, kind: int) -> None:
        self._refuse_reserved(name)
        present = self.status(name)
        if present is not None and (is_kind := _kind(present)) != kind:
            found = _KINDS.get(is_kind, "something else")
            expected = "a folder" if kind == stat.S_IFDIR else "a regular file"
            raise UnsafePathError(f"{self.path / name} is {found}, where {expected} is expected; remove it")


def open_folder(path: Path, *, within: Path | None = None, make: bool = True) -> Folder:
    """Open a folder to write in.

    Args:
        path: the folder. If it is ``within`` another one, no link may lead out of that.
        within: the folder that the user named, itself perhaps by a link. None: ``path`` is what the user named.
        make: make the folder and its parents where they are missing.

    Raises:
        UnsafePathError: a link leads out of ``within``, or took the place of a folder meanwhile.
        OSError: the folder cannot be made or opened.
    """
    parts = () if within is None else parts_below(path, within)
    root = path if within is None else within
    if make:
        root.mkdir(parents=True, exist_ok=True)
    folder = Folder(root, os.open(root, _AS_FOLDER) if _HAS_DESCRIPTORS else None)
    for part in parts:
        with folder:
            folder = folder.enter(part, make=make)
    return folder


def parts_below(path: Path, folder: Path) -> tuple[str, ...]:
    """The names that lead from ``folder`` to ``path``, with all links followed.

    Raises:
        UnsafePathError: a link leads out of ``folder``.
    """
    here, there = os.path.realpath(path), os.path.realpath(folder)
    if not is_within(here, there):
        raise UnsafePathError(f"a link in the output folder leads out of it: {path}; remove it")
    return Path(here).relative_to(there).parts


def is_reserved(name: str) -> bool:
    """Return whether this system is Windows, and takes ``name`` for a device, a stream of a file or another name."""
    return IS_WINDOWS and _RESERVED.fullmatch(name) is not None


def _kind(status: os.stat_result) -> int:
    """The file type of a status; a junction of Windows is a link."""
    is_junction = getattr(status, "st_reparse_tag", 0) == _JUNCTION
    return stat.S_IFLNK if is_junction else stat.S_IFMT(status.st_mode)


def is_within(path: str, folder: str) -> bool:
    """Return whether ``path`` is ``folder`` or lies in it; both as ``os.path.realpath`` gives them."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
