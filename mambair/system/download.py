"""Fetching one file over HTTP: interrupted downloads go on where they stopped, and nothing half is ever in place."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mambair.system import web_connections
from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import read_json
from mambair.system.cache_folder import is_own_file
from mambair.system.console import printable, progress_bar
from mambair.system.path_gate import open_folder
from mambair.system.private_append import open_to_append
from mambair.system.web_connections import (
    UnsafeAddressError,
    opener,
    recorded_address,
    refuse_credentials,
    shown_address,
)

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are and the bytes there will be (None where the server does not say)."""

_CHUNK = 2**18
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0
_NUMBER = "[0-9]{1,20}"
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,1000}")
MOST_BYTES = 64 * 2**30
""":func:`download` ends at so many bytes of a file whose size nobody stated."""


class DownloadError(RuntimeError):
    """A file could not be fetched, and trying again at once would not help; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # servers word parts of it


class _Interrupted(Exception):
    """The connection ended early; what was received stays, and the next attempt goes on."""


def no_progress(done: int, total: int | None) -> None:
    """Tell nobody."""


def download_bar(name: str) -> Progress:
    """A bar on standard error for the file of that name, which appears when its first bytes arrive."""
    bar: tqdm | None = None

    def progress(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(total, initial=done, description=name, unit="B", unit_scale=True)
        bar.n = done
        bar.refresh()
        if done == total:
            bar.close()

    return progress


@dataclass
class PartialFile:
    """``<name>.part`` beside the target, and what the server said about the whole it is a part of.

    Args:
        target: where the file will be when it is whole.
        url: a part fetched from elsewhere is not continued.
    """

    target: Path
    url: str

    def __post_init__(self) -> None:
        self.path = self.target.with_name(f"{self.target.name}.part")
        self._notes = self.target.with_name(f"{self.target.name}.part.json")
        self.address, self._recorded = shown_address(self.url), recorded_address(self.url)

    @property
    def bytes(self) -> int:
        """How much is there."""
        return self.path.stat().st_size if is_own_file(self.path) else 0

    def validator(self) -> str | None:
        """The server's mark of this version of the file: a strong ETag, else its date; None: not to be continued."""
        notes = self._read_notes()
        return _header_text(notes.get("validator")) if notes.get("url") == self._recorded else None

    def belongs(self) -> bool:
        """Whether what is there came from this address."""
        return self._read_notes().get("url") == self._recorded

    def _read_notes(self) -> dict[str, Any]:
        try:
            return read_json(self._notes, 2**16)
        except (OSError, ValueError):
            return {}

    def start(self, headers: Any) -> None:
        """Begin anew, remembering the version that ``headers`` describe."""
        self.discard()
        tag = headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
        notes = {"url": self._recorded, "validator": _header_text(validator)}
        with atomic_path(self._notes) as temporary:
            temporary.write_text(json.dumps(notes, allow_nan=False), encoding="utf-8")

    def discard(self) -> None:
        """Forget what is there."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def complete(self) -> None:
        """Give the whole file its name."""
        with open_folder(self.path.parent, make=False) as folder:
            descriptor = folder.open_file(self.path.name, os.O_RDONLY)
            status = os.fstat(descriptor)
            os.close(descriptor)
            folder.rename(self.path.name, self.target.name, status)
        self._notes.unlink(missing_ok=True)


def _header_text(value: object) -> str | None:
    """The value of a header if it can be sent back as one, or None."""
    return value if isinstance(value, str) and _VALIDATOR.fullmatch(value) else None


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    most: int = MOST_BYTES,
    verified_later: bool = False,
    token: str | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
    progress: Progress = no_progress,
) -> None:
    """Fetch ``url`` to ``target``, going on with ``<target>.part`` where the server can do that.

    A part is continued if the server's ETag or date says that the file is still the same, or if the caller compares
    a checksum afterwards. An attempt that came further than all before, by more than drops, does not count.

    Args:
        url: http or https.
        target: the file to make; its folder too.
        size: bytes the file must have.
        most: bytes it may have where ``size`` is not known.
        verified_later: the caller knows a checksum of the whole.
        token: sent to the host of ``url`` as the bearer's, and to no host it redirects to.
        attempts: so many in a row that come no further end it.
        pause: seconds before the second attempt; doubled each time.
        timeout: seconds without any answer that end an attempt; see also `web_connections.LEAST_BYTES`.
        progress: told after every chunk.

    Raises:
        DownloadError: the address, the length or the server is wrong, the disk is full, or the attempts are used up.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{shown_address(url)}: only http and https can be fetched")
    try:
        refuse_credentials(url)
    except (UnsafeAddressError, ValueError) as error:
        raise DownloadError(f"{shown_address(url)}: {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = PartialFile(target, url)
    web = opener()
    fruitless, furthest = 0, partial.bytes
    while True:
        try:
            _receive(web, partial, size, most, verified_later, token, timeout, progress)
            break
        except _Interrupted as interruption:
            fruitless = 0 if partial.bytes - furthest >= web_connections.LEAST_BYTES else fruitless + 1
            furthest = max(furthest, partial.bytes)
            if fruitless >= attempts:
                tries = f"{attempts} attempt{'s' * (attempts != 1)}"
                raise DownloadError(
                    f"{partial.address}: {interruption}; gave up after {tries}. {partial.bytes} bytes are kept, "
                    "and the same command goes on from there"
                ) from None
            seconds = min(pause * 2**fruitless, _LONGEST_PAUSE)
            logger.info("%s: %s; trying again in %.0f s", partial.address, printable(str(interruption)), seconds)
            time.sleep(seconds)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise DownloadError(f"{target}: cannot be written ({error.strerror or error})") from error
            raise DownloadError(
                f"{target}: the disk is full after {partial.bytes} bytes; make room, and the same command goes on"
            ) from error
    partial.complete()


def _receive(
    web: urllib.request.OpenerDirector,
    partial: PartialFile,
    size: int | None,
    most: int,
    verified_later: bool,
    token: str | None,
    timeout: float,
    progress: Progress,
) -> None:
    """One attempt; returns when the whole file is in ``partial``."""
    headers = {"User-Agent": "mambair", "Accept-Encoding": "identity"}
    done, validator = partial.bytes, partial.validator()
    if done and not (validator or (verified_later and partial.belongs())):
        partial.discard()
        done = 0
    if done:
        headers["Range"] = f"bytes={done}-"
        if validator:
            headers["If-Range"] = validator
    request = urllib.request.Request(partial.url, headers=headers)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        response = web.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if _is_whole(error, done, size):
            return
        _explain(error, partial)
    except UnsafeAddressError as error:
        raise DownloadError(f"{partial.address}: {error}") from None
    except (ValueError, http.client.InvalidURL) as error:  # of an address, in the request or in a redirection
        is_shown = isinstance(error, ValueError)  # the text of the other may hold the query
        reason = error if is_shown else "a space, or a port that is not a number"
        raise DownloadError(
            f"{partial.address}: it, or an address the server redirects to, is wrong ({reason})"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"no connection ({getattr(error, 'reason', error)})") from error
    with response:
        start, total = _place(response, partial, done)
        _check_answer(response, partial, total, size, most, start)
        if start == 0:
            partial.start(response.headers)
        _append(response, partial, total if total is not None else size, most, progress)


def _is_whole(error: urllib.error.HTTPError, done: int, size: int | None) -> bool:
    """Whether "range not satisfiable" means that nothing is missing any more."""
    told = re.fullmatch(rf"bytes \*/({_NUMBER})", error.headers.get("Content-Range", "")) if error.code == 416 else None
    return told is not None and int(told[1]) == done and size in (None, done)


def _explain(error: urllib.error.HTTPError, partial: PartialFile) -> NoReturn:
    """Raise what an error status means."""
    if error.code == 416:
        partial.discard()
        raise _Interrupted("the server has less than we have; starting over") from None
    if error.code in _TEMPORARY_STATUS:
        raise _Interrupted(f"the server answers {error.code} {error.reason}") from None
    hint = "; the file may have moved: see its authors' page" if error.code in (403, 404, 410) else ""
    raise DownloadError(f"{partial.address}: the server answers {error.code} {error.reason}{hint}") from None


def _place(response: Any, partial: PartialFile, done: int) -> tuple[int, int | None]:
    """Where the answer begins, and how long the whole file is (None if that is not said)."""
    if response.status == 206:
        told = re.fullmatch(rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)", response.headers.get("Content-Range", ""))
        if told is None or int(told[1]) != done:
            partial.discard()
            raise _Interrupted("the server sends another part than was asked for; starting over")
        return done, None if told[2] == "*" else int(told[2])
    # a server that knows no ranges, or has another version by now, sends the whole file
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(_NUMBER, length) else None


def _check_answer(
    response: Any, partial: PartialFile, total: int | None, size: int | None, most: int, start: int
) -> None:
    kind = response.headers.get_content_type()
    if kind == "text/html" and not partial.target.suffix.startswith(".htm"):
        raise DownloadError(
            f"{partial.address}: the server sends a web page in place of the file; see its authors' page"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{partial.address}: the server encodes the file although it was asked not to")
    if size is not None and total is not None and total != size:
        partial.discard()
        raise DownloadError(
            f"{partial.address}: the file has {total} bytes, expected {size}; its authors may have changed it"
        )
    missing = (total or size or 0) - start
    free = shutil.disk_usage(partial.target.parent).free
    if missing > free:
        raise DownloadError(f"{partial.target}: needs {missing} bytes, and the disk has {free} free; make room")
    if size is None and total is not None and total > most:
        raise DownloadError(f"{partial.address}: the file has {total} bytes, more than the {most} it may have")


def _append(response: Any, partial: PartialFile, total: int | None, most: int, progress: Progress) -> None:
    done = partial.bytes
    with open_to_append(partial.path) as file:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (http.client.HTTPException, OSError) as error:
                raise _Interrupted(f"the connection broke at byte {done} ({error or type(error).__name__})") from error
            if not chunk:
                break
            done += len(chunk)
            if done > (most if total is None else total):
                break
            file.write(chunk)
            progress(done, total)
    if total is None and done > most:
        partial.discard()
        raise DownloadError(f"{partial.address}: the server sends more than the {most} bytes the file may have")
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended at byte {done} of {total}")
    if total is not None and done > total:
        partial.discard()
        raise _Interrupted(f"the server sends more than the {total} bytes of the file; starting over")
