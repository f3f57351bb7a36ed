"""Unpacking images out of archives nobody has checked: zip and tar, plain or compressed.

Nothing is written outside of the given folders, no link or device is made, only files with an image suffix come out,
and an archive that would swell beyond reason is refused before anything is written.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mambair.data.pairing import DatasetError
from mambair.images.files import SUFFIXES
from mambair.system.atomic_file import atomic_path

MAX_MEMBERS = 200_000
MAX_GROWTH = 20
"""Pictures are compressed already: an archive that unpacks to more than this many times its size is not one of them."""
FREE_GROWTH = 64 * 2**20  # small archives of bitmaps may exceed the factor
MAX_TAR_HEADERS = 2**16  # bytes of a header in a tar with what extends it: long names, PAX records
MAX_ZIP_DIRECTORY = 2**25  # bytes of a zip's table of contents; that of 200,000 files has about 20 MB
MAX_GLOBAL_RECORDS = 100  # PAX records for the whole of a tar, which are copied for each member
MAX_NAME = 4096
# other methods return whatever a piece of input unpacks to, at once: a gigabyte for some kilobytes
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
COMPRESSIONS: dict[bytes, Callable[..., IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"]\0\0": lzma.open,
}
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(NotImplementedError, ValueError, OverflowError, RecursionError, MemoryError),
)


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        path: within the archive; relative, without "..".
        size: unpacked, in bytes.
        open: gives its content.
    """

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, placements: Mapping[str, Path], *, within: Path | None = None) -> dict[str, int]:
    """Unpack the images below chosen folders of an archive; those that are there already are left alone.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, ...: the content decides.
        placements: folder within the archive -> folder on the disk: ``<key>/a/b.png`` goes to ``<value>/a/b.png``.
        within: the folder that no link may lead out of; None: the folder of each placement.

    Returns:
        For each key the number of images that are now in place.

    Raises:
        DatasetError: it is no archive, is damaged, holds a member with an unsafe path or kind, or is a bomb.
        OSError: the disk is full or not writable.
    """
    counts = dict.fromkeys(placements, 0)
    with _opened(archive) as members:
        missing: list[tuple[Member, Path]] = []
        for member in members:
            key = next((key for key in placements if PurePosixPath(key) in member.path.parents), None)
            if key is None or member.path.suffix.lower() not in SUFFIXES or _is_clutter(member.path):
                continue
            target = placements[key] / member.path.relative_to(key)
            refuse_escape(target, within or placements[key])
            if not (target.is_file() and target.stat().st_size == member.size):
                missing.append((member, target))
            counts[key] += 1
        _need_room(archive, sum(member.size for member, _ in missing))
        for member, target in missing:
            _write(archive, member, target, within)
    return counts


def top_folders(archive: Path, depth: int = 3) -> list[str]:
    """The first folders of an archive, for messages that say what it holds instead of what was looked for."""
    with _opened(archive) as members:
        return sorted({"/".join(member.path.parts[:-1][:depth]) for member in members})[:10]


def _is_clutter(path: PurePosixPath) -> bool:
    """Shadows that macOS leaves in archives."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _write(archive: Path, member: Member, target: Path, within: Path | None) -> None:
    with atomic_path(target, within=within) as temporary, temporary.open("wb") as file:
        try:
            content = member.open()
        except (*DAMAGE, RuntimeError) as error:  # zipfile's for an encrypted member
            raise DatasetError(f"{archive}: {member.path} cannot be unpacked ({error})") from error
        with content:
            _copy(archive, member, content, file)


def _copy(archive: Path, member: Member, content: IO[bytes], file: IO[bytes]) -> None:
    """Copy exactly the announced bytes."""
    copied = 0
    while True:
        try:
            chunk = content.read(2**18)
        except DAMAGE as error:
            raise DatasetError(f"{archive}: {member.path} is damaged ({error})") from error
        if not chunk:
            break
        copied += len(chunk)
        if copied > member.size:
            break
        file.write(chunk)
    if copied != member.size:
        raise DatasetError(f"{archive}: {member.path} has not the {member.size} bytes the archive announces")


def _need_room(archive: Path, needed: int) -> None:
    free = shutil.disk_usage(archive.parent).free
    if needed > free:
        raise DatasetError(f"{archive}: unpacking needs {needed} bytes, and the disk has {free} free; make room")


def refuse_escape(target: Path, folder: Path) -> None:
    """Refuse a place to write to that a link in ``folder`` leads out of it.

    Raises:
        DatasetError: with the link and the folder.
    """
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{target.parent}: is a link that leads out of {folder}; nothing is written there")


@contextmanager
def _opened(archive: Path) -> Iterator[list[Member]]:
    """Yield the files of an archive, all of them checked; their contents can be read until the block ends."""
    packed = archive.stat().st_size
    budget = _Budget(packed, packed * MAX_GROWTH + FREE_GROWTH)
    with ExitStack() as stack:
        try:
            if zipfile.is_zipfile(archive):
                members = _of_zip(stack, archive, budget)
            else:
                members = _of_tar(stack, archive, budget)
        except _UnsafeMember as fault:
            raise DatasetError(f"{archive}: {fault}; nothing was unpacked") from None
        except DAMAGE as error:
            raise DatasetError(f"{archive}: is no zip or tar archive, or is damaged ({error})") from error
        yield members


class _UnsafeMember(Exception):
    """A member that no data set has; `_opened` adds the archive's name."""


class _Budget:
    """Counts the members of an archive and their bytes.

    Args:
        packed: bytes of the archive.
        limit: bytes that its members may have together.
    """

    def __init__(self, packed: int, limit: int) -> None:
        self.packed, self.limit = packed, limit
        self._members, self._bytes = 0, 0

    def take(self, size: int) -> None:
        """Count a member of any kind, folders too.

        Raises:
            _UnsafeMember: there are too many, or they are too large.
        """
        self._members += 1
        self._bytes += size
        if self._members > MAX_MEMBERS:
            raise _UnsafeMember(f"it has more than the {MAX_MEMBERS} files and folders a data set may have")
        if size < 0 or self._bytes > self.limit:
            raise _UnsafeMember(f"its {self.packed} bytes would unpack to more than {self.limit}")


class _BoundedFile:
    """A file for zipfile and tarfile, which read headers as long as a header says, whole.

    Attributes:
        room: bytes that may still be read; None for no limit.

    Args:
        file: opened for reading.
        room: see above.
        end: the last place that may be gone to; going there unpacks everything before it.
    """

    def __init__(self, file: IO[bytes], room: int, end: int) -> None:
        self._file, self._end = file, end
        self.room: int | None = room
        self.tell, self.seekable, self.close = file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        if self.room is None:
            return self._file.read(size)
        content = self._file.read(self.room + 1 if size < 0 else min(size, self.room + 1))
        self.room -= len(content)
        if self.room < 0:
            raise _UnsafeMember("a header of it is longer than any data set has")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > self._end:
            raise _UnsafeMember(f"it would unpack to more than {self._end} bytes")
        return self._file.seek(offset, whence)


def _of_zip(stack: ExitStack, archive: Path, budget: _Budget) -> list[Member]:
    file = _BoundedFile(stack.enter_context(archive.open("rb")), MAX_ZIP_DIRECTORY, budget.packed)
    opened = stack.enter_context(zipfile.ZipFile(cast("IO[bytes]", file)))
    file.room = None
    members = []
    for info in opened.infolist():
        budget.take(info.file_size)
        path = _safe(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _UnsafeMember(f"{info.filename!r} is a link or a device")
        if info.compress_type not in ZIP_METHODS:
            raise _UnsafeMember(f"{info.filename!r} is packed by another method than deflate")
        if not info.is_dir():
            members.append(Member(path, info.file_size, lambda info=info: opened.open(info)))
    return members


def _of_tar(stack: ExitStack, archive: Path, budget: _Budget) -> list[Member]:
    with archive.open("rb") as start:
        magic = start.read(6)
    unpacked = next((opener for mark, opener in COMPRESSIONS.items() if magic.startswith(mark)), open)
    file = _BoundedFile(stack.enter_context(unpacked(archive, "rb")), MAX_TAR_HEADERS, budget.limit)
    opened = stack.enter_context(tarfile.TarFile(fileobj=cast("IO[bytes]", file)))
    members = []
    while (info := opened.next()) is not None:
        budget.take(info.size)
        path = _safe(info.name)
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise _UnsafeMember(f"{info.name!r} is a link, a device or sparse")
        if len(opened.pax_headers) > MAX_GLOBAL_RECORDS:
            raise _UnsafeMember(f"it has more than {MAX_GLOBAL_RECORDS} global records")
        if info.isreg():
            members.append(Member(path, info.size, lambda info=info: _tar_content(opened, info)))
        info.pax_headers = {}
        opened.members.clear()  # tarfile keeps them all
        file.room = MAX_TAR_HEADERS
    file.room = None
    return members


def _tar_content(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(info)
    if content is None:
        raise tarfile.TarError("it has no content")
    return content


def _safe(name: str) -> PurePosixPath:
    """The path of a member, if it stays below the folder it is unpacked to on any system."""
    if len(name) > MAX_NAME:
        raise _UnsafeMember(f"a name of {len(name)} characters, {name[:40]!r} ..., is too long")
    path = PurePosixPath(name)
    is_plain = not any(character in "\\:" or ord(character) < 32 for character in name)
    if path.is_absolute() or ".." in path.parts or not is_plain:
        raise _UnsafeMember(f"{name!r} is a path that leads elsewhere")
    return path
