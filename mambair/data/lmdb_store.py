"""Images in an LMDB, in BasicSR's layout: a folder with ``data.mdb`` and ``meta_info.txt``.

Keys are file names without suffix, values are encoded image files, byte for byte. Source of the layout: BasicSR 1.4.2;
of the database: https://lmdb.readthedocs.io.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from mambair.data.pairing import DatasetError, listed
from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import read_bytes, read_lines
from mambair.system.cache_folder import is_own_file
from mambair.system.console import printable
from mambair.system.path_gate import open_folder
from mambair.system.private_append import open_to_append

logger = logging.getLogger(__name__)

DATA, LOCK, META_INFO, JOURNAL = "data.mdb", "lock.mdb", "meta_info.txt", "journal.txt"
FIRST_MAP_BYTES = 2**26
BATCH_BYTES = 2**26  # kept in memory until they are committed together
_FREE_PAGES = 16  # at the end of a database; lmdb counts pages that it took and gave back, and never wrote them

_LINE = re.compile(
    r"(?P<key>.+?)(?P<suffix>\.[^./ ]+)? "
    r"\((?P<height>[0-9]{1,9}),\s?(?P<width>[0-9]{1,9}),\s?(?P<channels>[0-9]{1,9})\)(?: [0-9]{1,9})?"
)
MOST_META_INFO_BYTES = 2**28
_ADVICE = "pip install 'mambair[train]' brings it"


_KEY_RULE = "must be a name in UTF-8, folders parted by /, without empty parts, . and .., backslashes and line ends"


class LmdbEntry(NamedTuple):
    """What ``meta_info.txt`` says of one image: its file name (key and suffix) and size in pixels."""

    name: str
    height: int
    width: int
    channels: int


def is_lmdb(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an LMDB, whole or not."""
    return Path(folder, DATA).is_file()


class LmdbWriter:
    """Writes a new LMDB: ``with LmdbWriter(folder) as writer: writer.put(...)``.

    Everything goes to ``<folder>.partial``, in transactions of ``BATCH_BYTES``; the folder gets its name, and
    ``meta_info.txt``, only when the block ends well, so that what bears the name is whole. The map grows as needed.

    Args:
        folder: the database to make; BasicSR asks for a name that ends in ``.lmdb``.
        resume: go on with what an interrupted writer left; ``key in writer`` says what is there already. By default
            it is thrown away.

    Raises:
        DatasetError: the folder exists, or the package ``lmdb`` is not installed.
        OSError: the folder cannot be made (UnsafePathError: a link is in its place).
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume: bool = False) -> None:
        lmdb = _package()
        self.folder = Path(folder)
        self.partial = self.folder.with_name(f"{self.folder.name}.partial")
        if self.folder.exists():
            raise DatasetError(f"{self.folder}: exists already; delete it, or name a new folder")
        if self.partial.exists() and not resume:
            shutil.rmtree(self.partial)
        with open_folder(self.folder.parent) as parent, parent.enter(self.partial.name, make=True) as partial:
            for name in (DATA, LOCK):  # lmdb would follow links, and write to where they lead
                if not is_own_file(self.partial / name):
                    partial.remove(name)
        self._environment = lmdb.open(str(self.partial), map_size=FIRST_MAP_BYTES)
        self._full = lmdb.MapFullError
        self._entries = self._committed()
        self._waiting: dict[str, bytes] = {}
        self._waiting_bytes = 0

    def put(
        self, key: str, encoded: bytes, height: int, width: int, channels: int, *, suffix: str = ".png", level: int = 1
    ) -> None:
        """Add one encoded image.

        Args:
            key: its name without suffix; folders are parted by ``/`` (``Canon/0001``).
            encoded: the image file, byte for byte.
            height, width, channels: of the decoded image.
            suffix: of the file, for ``meta_info.txt``.
            level: compression level, for ``meta_info.txt``, which readers ignore.

        Raises:
            DatasetError: the key is taken or not possible, or there is nothing to store.
        """
        self._check_key(key)
        if not encoded:
            raise DatasetError(f"{self.folder}: {key!r} would be empty (0 bytes)")
        if re.search(r"[\s/]", suffix) or not suffix.startswith("."):
            raise DatasetError(f"{self.folder}: the suffix of {key!r} must be one like .png, got {suffix!r}")
        self._entries[key] = f"{key}{suffix} ({height},{width},{channels}) {level}"
        self._waiting[key] = bytes(encoded)
        self._waiting_bytes += len(encoded)
        if self._waiting_bytes >= BATCH_BYTES:
            self._commit()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, DatasetError | OSError):
                self._commit()  # of an interrupted run as well: it can be resumed
        finally:
            self._environment.close()
        if kind is None:
            self._finish()

    def _check_key(self, key: str) -> None:
        if not _is_plain(key):
            raise DatasetError(f"{self.folder}: the key {_KEY_RULE}, got {key!r}")
        longest = self._environment.max_key_size()
        if len(key.encode()) > longest:
            raise DatasetError(
                f"{self.folder}: the key {key!r} has {len(key.encode())} bytes, at most {longest} are possible"
            )
        if key in self._entries:
            raise DatasetError(f"{self.folder}: the key {key!r} is given twice; keys are names without suffix")

    def _committed(self) -> dict[str, str]:
        """The lines of the images that an interrupted writer committed, by key."""
        journal = self.partial / JOURNAL
        if not is_own_file(journal):
            return {}
        found = {}
        with self._environment.begin() as transaction:
            # the last line may be a part of one, and its image is then not in the database
            for line in read_bytes(journal, MOST_META_INFO_BYTES).decode("utf-8", "replace").split("\n"):
                match = _LINE.fullmatch(line)
                if match and transaction.get(match["key"].encode()) is not None:
                    found[match["key"]] = line
        return found

    def _commit(self) -> None:
        """Write what is waiting in one transaction, after its lines in the journal."""
        if not self._waiting:
            return
        with open_to_append(self.partial / JOURNAL) as journal:
            # an earlier run may have ended within a line
            journal.write(("\n" + "".join(f"{self._entries[key]}\n" for key in self._waiting)).encode("utf-8"))
            journal.flush()
            os.fsync(journal.fileno())
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, encoded in self._waiting.items():
                        transaction.put(key.encode(), encoded)
                break
            except self._full:
                size = self._environment.info()["map_size"]
                self._environment.set_mapsize(size + max(size // 4, 2 * self._waiting_bytes))
        self._waiting.clear()
        self._waiting_bytes = 0

    def _finish(self) -> None:
        lines = [self._entries[key] for key in sorted(self._entries)]
        with atomic_path(self.partial / META_INFO) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        (self.partial / JOURNAL).unlink(missing_ok=True)
        self.partial.rename(self.folder)
        dotted = [key for key in self._entries if "." in key]
        if dotted:
            logger.warning("%s: basicsr cannot read keys with a dot: %s", self.folder, printable(listed(dotted)))
        if self.folder.suffix != ".lmdb":
            logger.warning("%s: basicsr reads databases only from folders named like name.lmdb", self.folder)


class LmdbReader:
    """Reads an LMDB of this module's writer or of BasicSR's tools.

    It may be made before worker processes are started, and passed to them: each process opens the database itself, at
    its first ``get``. Readers of one folder in one process share it.

    Args:
        folder: the database.

    Raises:
        DatasetError: no whole database, or the package ``lmdb`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        _package()
        self.folder = Path(folder)
        if not is_lmdb(self.folder):
            raise DatasetError(f"{self.folder}: is no LMDB: it has no {DATA}")
        try:
            lines = read_lines(self.folder / META_INFO, MOST_META_INFO_BYTES)
        except OSError:
            raise DatasetError(
                f"{self.folder}: has no {META_INFO}: the database was not finished; make it again"
            ) from None
        except ValueError as error:
            raise DatasetError(f"{self.folder / META_INFO}: cannot be read: {error}") from None
        self._entries = dict(self._parsed(lines))
        if not self._entries:
            raise DatasetError(f"{self.folder}: {META_INFO} names no image")

    def _parsed(self, lines: list[str]) -> Iterator[tuple[str, LmdbEntry]]:
        right = "'name.png (height,width,channels) level' is right"
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line.rstrip())
            if match:
                if not _is_plain(match["key"]):
                    raise DatasetError(f"{self.folder / META_INFO}:{number}: the key {_KEY_RULE}, got {match['key']!r}")
                size = (int(match["height"]), int(match["width"]), int(match["channels"]))
                yield match["key"], LmdbEntry(match["key"] + (match["suffix"] or ""), *size)
            elif line.strip():
                raise DatasetError(f"{self.folder / META_INFO}:{number}: found {line[:80]!r}; {right}")

    def keys(self) -> list[str]:
        """The keys, in the order of ``meta_info.txt``."""
        return list(self._entries)

    def entry(self, key: str) -> LmdbEntry:
        """File name and size of an image, without opening the database.

        Raises:
            DatasetError: there is no such key.
        """
        try:
            return self._entries[key]
        except KeyError:
            raise DatasetError(f"{self.folder}: has no image {key!r}") from None

    def get(self, key: str) -> bytes:
        """The encoded image.

        Raises:
            DatasetError: there is no such key, the database is damaged, or something else has it open in this process.
        """
        lmdb = _package()
        try:
            with _opened(self.folder).begin() as transaction:
                encoded = transaction.get(key.encode())
        except lmdb.Error as error:
            if "already open in this process" in str(error):
                raise DatasetError(
                    f"{self.folder}: is open in this process already, through another reader such as basicsr's; lmdb "
                    "opens a database once in a process: use data sets of one kind for it, or workers for one of them"
                ) from error
            raise DatasetError(f"{self.folder}: cannot be read, it may be damaged ({error})") from error
        if encoded is None:
            raise DatasetError(f"{self.folder}: has no image {key!r}")
        return encoded

    def close(self) -> None:
        """Close the database in this process, for all readers of it; ``get`` opens it again."""
        _, environment = _environments.pop(_identity(self.folder), (0, None))
        if environment is not None:
            environment.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


def _is_plain(key: str) -> bool:
    """Whether a key is a path that stays below its folder on any system."""
    parts = key.split("/")
    return all(parts) and not {".", ".."} & set(parts) and "\\" not in key and is_text(key)


def is_text(name: str) -> bool:
    """Whether a name can stand on a line of UTF-8 text: no line ends and control characters, no undecodable bytes."""
    return all(ord(letter) >= 32 and not 0xD800 <= ord(letter) <= 0xDFFF for letter in name)


# LMDB refuses to open a file twice in one process, and what was opened before a fork belongs to the parent
_environments: dict[str, tuple[int, Any]] = {}


def _identity(folder: Path) -> str:
    return os.path.realpath(folder)


def _opened(folder: Path) -> Any:
    """The environment of this process for ``folder``."""
    identity = _identity(folder)
    process, environment = _environments.get(identity, (0, None))
    if environment is None or process != os.getpid():
        if environment is not None:
            environment.close()
        # no readahead: samples are read in random order; no lock: nobody writes into a finished database
        environment = _package().open(identity, readonly=True, create=False, lock=False, readahead=False)
        _refuse_cut(folder, environment)
        _environments[identity] = (os.getpid(), environment)
    return environment


def _refuse_cut(folder: Path, environment: Any) -> None:
    """Raise DatasetError if the file ends early: reading what is behind its end would kill this process."""
    pages, page = environment.info()["last_pgno"] + 1, environment.stat()["psize"]
    size = (folder / DATA).stat().st_size
    if size < (pages - _FREE_PAGES) * page:
        environment.close()
        raise DatasetError(f"{folder}: {DATA} has {size} of {pages * page} bytes: it was cut short; make it again")


def _package() -> Any:
    """The module ``lmdb``, an optional dependency."""
    try:
        import lmdb
    except ImportError as error:
        raise DatasetError(
            f"LMDB data needs the package lmdb, which cannot be imported ({error}); {_ADVICE}"
        ) from error
    return lmdb
