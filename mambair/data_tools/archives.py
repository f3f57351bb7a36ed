"""Unpacking images out of archives nobody has checked: zip and tar, plain or compressed.

Nothing is written outside of the given folders, no link or device is made, only files with an image suffix come out,
and an archive that would swell beyond reason is refused before anything is written.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from mambair.images.files import SUFFIXES
from mambair.system.atomic_file import atomic_path

MAX_MEMBERS = 200_000
MAX_GROWTH = 20
"""Pictures are compressed already: an archive that unpacks to more than this many times its size is not one of them."""
FREE_GROWTH = 64 * 2**20  # small archives of bitmaps may exceed the factor
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError)


class ArchiveError(ValueError):
    """An archive is damaged, or holds what it should not; nothing or only whole images were written."""


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


def unpack(archive: Path, placements: Mapping[str, Path]) -> dict[str, int]:
    """Unpack the images below chosen folders of an archive; those that are there already are left alone.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, ...: the content decides.
        placements: folder within the archive -> folder on the disk: ``<key>/a/b.png`` goes to ``<value>/a/b.png``.

    Returns:
        For each key the number of images that are now in place.

    Raises:
        ArchiveError: it is no archive, is damaged, holds a member with an unsafe path or kind, or is a bomb.
        OSError: the disk is full or not writable.
    """
    counts = dict.fromkeys(placements, 0)
    with _opened(archive) as members:
        _refuse_bomb(archive, members)
        missing: list[tuple[Member, Path]] = []
        for member in members:
            key = next((key for key in placements if PurePosixPath(key) in member.path.parents), None)
            if key is None or member.path.suffix.lower() not in SUFFIXES or _is_clutter(member.path):
                continue
            target = placements[key] / member.path.relative_to(key)
            _refuse_escape(target, placements[key])
            if not (target.is_file() and target.stat().st_size == member.size):
                missing.append((member, target))
            counts[key] += 1
        _need_room(archive, sum(member.size for member, _ in missing))
        for member, target in missing:
            _write(archive, member, target)
    return counts


def top_folders(archive: Path, depth: int = 3) -> list[str]:
    """The first folders of an archive, for messages that say what it holds instead of what was looked for."""
    with _opened(archive) as members:
        return sorted({"/".join(member.path.parts[:-1][:depth]) for member in members})[:10]


def _is_clutter(path: PurePosixPath) -> bool:
    """Shadows that macOS leaves in archives."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _write(archive: Path, member: Member, target: Path) -> None:
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        try:
            content = member.open()
        except (*DAMAGE, RuntimeError) as error:  # zipfile's for an encrypted member
            raise ArchiveError(f"{archive}: {member.path} cannot be unpacked ({error})") from error
        with content:
            _copy(archive, member, content, file)


def _copy(archive: Path, member: Member, content: IO[bytes], file: IO[bytes]) -> None:
    """Copy exactly the announced bytes."""
    copied = 0
    while True:
        try:
            chunk = content.read(2**18)
        except DAMAGE as error:
            raise ArchiveError(f"{archive}: {member.path} is damaged ({error})") from error
        if not chunk:
            break
        copied += len(chunk)
        if copied > member.size:
            break
        file.write(chunk)
    if copied != member.size:
        raise ArchiveError(f"{archive}: {member.path} has not the {member.size} bytes the archive announces")


def _refuse_bomb(archive: Path, members: list[Member]) -> None:
    total, packed = sum(member.size for member in members), archive.stat().st_size
    if len(members) > MAX_MEMBERS:
        raise ArchiveError(f"{archive}: {len(members)} files are more than the {MAX_MEMBERS} a data set may have")
    if total > packed * MAX_GROWTH + FREE_GROWTH:
        raise ArchiveError(
            f"{archive}: {packed} bytes would unpack to {total}, more than {MAX_GROWTH} times as much; not unpacked"
        )


def _need_room(archive: Path, needed: int) -> None:
    free = shutil.disk_usage(archive.parent).free
    if needed > free:
        raise ArchiveError(f"{archive}: unpacking needs {needed} bytes, and the disk has {free} free; make room")


def _refuse_escape(target: Path, folder: Path) -> None:
    """A link that lies in the folder already must not lead out of it."""
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ArchiveError(f"{target.parent}: is a link that leads out of {folder}; not unpacked there")


@contextmanager
def _opened(archive: Path) -> Iterator[list[Member]]:
    try:
        is_zip = zipfile.is_zipfile(archive)
        opened = zipfile.ZipFile(archive) if is_zip else tarfile.open(archive)  # noqa: SIM115  closed below
    except DAMAGE as error:
        raise ArchiveError(f"{archive}: is no zip or tar archive, or is damaged ({error})") from error
    with opened:
        try:
            members = _of_zip(opened) if isinstance(opened, zipfile.ZipFile) else _of_tar(archive, opened)
        except DAMAGE as error:
            raise ArchiveError(f"{archive}: is damaged ({error})") from error
        except UnsafeMember as fault:
            raise ArchiveError(f"{archive}: {fault}; nothing was unpacked") from None
        yield members


class UnsafeMember(Exception):
    """A member that no data set has; `_opened` adds the archive's name."""


def _of_zip(opened: zipfile.ZipFile) -> list[Member]:
    members = []
    for info in opened.infolist():
        path = _safe(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnsafeMember(f"{info.filename!r} is a link or a device")
        if not info.is_dir():
            members.append(Member(path, info.file_size, lambda info=info: opened.open(info)))
    return members


def _of_tar(archive: Path, opened: tarfile.TarFile) -> list[Member]:
    members, total = [], 0
    limit = archive.stat().st_size * MAX_GROWTH + FREE_GROWTH
    for info in opened:
        path = _safe(info.name)
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise UnsafeMember(f"{info.name!r} is a link, a device or sparse")
        total += info.size
        if total > limit or len(members) > MAX_MEMBERS:  # a compressed stream is only known by reading it
            raise UnsafeMember(f"it would unpack to more than {limit} bytes or {MAX_MEMBERS} files")
        if info.isreg():
            members.append(Member(path, info.size, lambda info=info: _tar_content(opened, info)))
    return members


def _tar_content(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(info)
    if content is None:
        raise tarfile.TarError("it has no content")
    return content


def _safe(name: str) -> PurePosixPath:
    """The path of a member, if it stays below the folder it is unpacked to on any system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(sign in name for sign in "\\:\0\n\r"):
        raise UnsafeMember(f"{name!r} is a path that leads elsewhere")
    return path
