"""Files of JSON objects, one a line: appended by threads and processes, read back with whatever damage they took."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mambair.system.bounded_reader import parse_json
from mambair.system.file_lock import locked
from mambair.system.path_gate import open_folder

MAX_LINE = 2**20  # bytes
_WAIT = 60.0  # seconds for others who append, each of whom takes milliseconds


class AppendError(OSError):
    """A line cannot be appended; ``errno`` says why."""


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The object on a line; None if it is longer than ``MAX_LINE``, or anything that `parse_json` refuses."""
    try:
        return parse_json(line) if len(line) <= MAX_LINE else None
    except ValueError:
        return None


def read_objects(stream: BinaryIO) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Each complete line of a file as (object, offset behind it); the object is None where the line is damaged.

    A last line without its end, as a killed process leaves it, is not complete. Memory is bounded by ``MAX_LINE``.
    """
    end = stream.tell()
    while line := stream.readline(MAX_LINE):
        end += len(line)
        is_whole = line.endswith(b"\n")
        part = line
        while part and not part.endswith(b"\n"):
            part = stream.readline(MAX_LINE)
            end += len(part)
        if not part:
            return
        yield parse_object(line) if is_whole else None, end


class JsonLines:
    """A file of JSON objects that several threads and processes may append to.

    It is opened once, when it is first needed, and again only if somebody removed it. A link, a pipe, a device or a
    folder in its place is an error.

    Args:
        path: of the file; it need not be there, and is made by the first ``append``.
        within: a folder that no link on the way to it may lead out of.
    """

    def __init__(self, path: Path, *, within: Path | None = None) -> None:
        self.path, self._within = path, within
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None  # of the file that was read to ``_read_to``
        self._read_to = 0
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self.close()

    def new(self) -> list[dict[str, Any] | None]:
        """The complete lines since the last call, whoever wrote them; None for a damaged one.

        Raises:
            OSError: the file cannot be opened or read (UnsafePathError: it is no regular file).
        """
        with self._lock:
            if not self._opened(make=False):
                return []
            assert self._descriptor is not None
            if os.fstat(self._descriptor).st_size == self._read_to:
                return []
            with os.fdopen(self._descriptor, "rb", closefd=False) as stream:
                stream.seek(self._read_to)
                found = list(read_objects(stream))
            self._read_to = found[-1][1] if found else self._read_to
            return [value for value, _ in found]

    def is_foreign(self) -> bool:
        """Return whether the file begins as no file of JSON objects does."""
        with self._lock:
            if not self._opened(make=False):
                return False
            assert self._descriptor is not None
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return os.read(self._descriptor, 1) not in (b"", b"{", b"\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line of its own, durably.

        Raises:
            AppendError: the file cannot be opened or written.
        """
        # ASCII, with names of any bytes as escapes
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            try:
                self._opened(make=True)
                assert self._descriptor is not None
                _append(self._descriptor, line)
            except OSError as error:
                failure = AppendError(f"{self.path} cannot be written: {error.strerror or error}")
                failure.errno = error.errno
                raise failure from error

    def close(self) -> None:
        """Close the file, until the next call; what was read is not given again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self, *, make: bool) -> bool:
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink:
            return True
        if self._descriptor is not None:  # the file was removed
            self.close()
            self._identity = None
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if make else 0)
        try:
            with open_folder(self.path.parent, within=self._within, make=make) as folder:
                self._descriptor = folder.open_file(self.path.name, flags)
        except (FileNotFoundError, NotADirectoryError):
            if make:
                raise
            return False
        status = os.fstat(self._descriptor)
        if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._read_to:
            self._identity, self._read_to = (status.st_dev, status.st_ino), 0
        return True


def _append(descriptor: int, line: bytes) -> None:
    with locked(descriptor, seconds=_WAIT):
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end:
            os.lseek(descriptor, end - 1, os.SEEK_SET)
            line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
