"""Weights by name: from a name or an address to a file in the user's cache, fetched and checked where it is missing."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from mambair.system.cache_folder import private_folder
from mambair.system.download import DownloadError, Progress, download, no_progress
from mambair.system.errors import RequestError
from mambair.system.file_lock import exclusive
from mambair.system.lock_file import LOCK_NAME, LockError, LockFile, digests
from mambair.weights.addresses import (
    HUB_PREFIX,
    PRETRAINED_FILE,
    FetchError,
    RemoteWeights,
    is_address,
    names,
    of_address,
    published,
)
from mambair.weights.catalogue import find, list_networks
from mambair.weights.checkpoint import SUFFIXES, CheckpointError, read_checkpoint
from mambair.weights.file_format import content_kind
from mambair.weights.hub import file_in_hub_cache, hub_token
from mambair.weights.other_families import load_other_family
from mambair.weights.recognition import recognise

logger = logging.getLogger(__name__)

HOME_VARIABLE, OFFLINE_VARIABLE = "MAMBAIR_HOME", "MAMBAIR_OFFLINE"
MOST_BYTES = 2**32  # of a file whose size is not known; the largest published one has about 0.7 GB

ATTEMPTS = 5  # at the last address of a file that come no further

NamedProgress = Callable[[str], Progress]


def silent(file: str) -> Progress:
    """Show no progress of the download of ``file``."""
    return no_progress


def locate(name: str | os.PathLike[str], *, offline: bool | None = None, progress: NamedProgress = silent) -> Path:
    """Return the file of weights that a path, a name or an address means; fetch it if it is not in the cache.

    Args:
        name: a file, or a folder that holds a ``model.safetensors``; a published network (``MambaIRv2-light-x4``);
            ``hub:owner/repository/file``; ``https://...``. A file or folder that exists comes first.
        offline: never use the network; None asks the environment variable ``MAMBAIR_OFFLINE``.
        progress: gives the callback for the download of a file of that name.

    Raises:
        FileNotFoundError: the text looks like a path, and there is no such file.
        FetchError: nothing is known under this name, it is not in the cache and the network may not be used, or what
            was fetched is not what it should be.
    """
    text = os.fspath(name)
    path = Path(text)
    if path.is_dir() and (path / PRETRAINED_FILE).is_file():
        return path / PRETRAINED_FILE
    if path.exists() and not path.is_dir():
        return path
    try:
        remote = resolve(text)
    except (FileNotFoundError, FetchError):
        if path.is_dir():
            raise FileNotFoundError(f"{text}: the folder holds no {PRETRAINED_FILE}; name a file") from None
        raise
    return obtain(remote, offline=offline, progress=progress)


def obtain(
    remote: RemoteWeights,
    *,
    folder: Path | None = None,
    offline: bool | None = None,
    progress: NamedProgress = silent,
) -> Path:
    """Return the file in the cache; fetch it if it is not there.

    Args:
        remote: as `resolve` gives it.
        folder: the cache; None for `cache_folder`.
        offline, progress: see `locate`.

    Raises:
        FetchError: see `locate`.
    """
    folder = folder or cache_folder()
    known = cached(remote, folder)
    if known is not None:
        return known
    if is_offline() if offline is None else offline:
        raise FetchError(
            f"{remote.name} is not in the cache ({folder}), and the network may not be used; fetch it with "
            f"'mambair weights fetch {remote.name}' where it may, or give a file"
        )
    return fetch(remote, folder=folder, progress=progress)


def resolve(text: str) -> RemoteWeights:
    """The file on the web that a name or an address means.

    Raises:
        FileNotFoundError: the text looks like a path.
        FetchError: no network has this name, or no address of its weights is known.
    """
    try:
        if is_address(text):
            return of_address(text)
        name = find(text).name
    except RequestError as error:
        if Path(text).suffix.lower() in SUFFIXES or "/" in text or os.sep in text:
            raise FileNotFoundError(f"{text}: there is no such file") from None
        raise FetchError(f"{text}: there is no such file, and {error}") from None
    remote = published(name)
    if remote is None:
        family = name.rpartition("-")[0]
        others = [other for other in list_networks(f"{family}*") if published(other) is not None] if family else []
        others = others or difflib.get_close_matches(name, names(), n=3)
        hint = f"; known are those of {', '.join(others)}" if others else ""
        raise FetchError(f"no address of weights is known for {name}{hint}; give a file")
    return remote


def size_in_words(remote: RemoteWeights) -> str:
    """``4.1 MB``; for a restoration network whose size no source states ``about 3 MB``, from its parameters."""
    if remote.size is not None:
        return f"{remote.size / 1e6:.1f} MB"
    family = find(remote.name).family if remote.licence else None
    if family is None:
        return "size not stated"
    return f"about {4 * family.parameters[family.names()[remote.name]] / 1e6:.0f} MB"


def cache_folder() -> Path:
    """The folder of fetched weights: ``$MAMBAIR_HOME/weights``, else ``weights`` in the user's private cache."""
    home = os.environ.get(HOME_VARIABLE)
    if not home:
        return private_folder("weights")
    if not Path(home).is_absolute():
        raise FetchError(f"{HOME_VARIABLE}={home}: expected an absolute path")
    return Path(home) / "weights"


def cached(remote: RemoteWeights, folder: Path | None = None) -> Path | None:
    """The file in the cache (None for `cache_folder`), compared with its known checksum; None if it is not there.

    The cache of huggingface_hub comes second.

    Raises:
        FetchError: it is not the file that it was.
    """
    folder = folder or cache_folder()
    path = folder / _cache_name(remote)
    expected = remote.sha256 or _lock(folder).sha256(path.name)
    if not path.is_file():
        known = file_in_hub_cache(remote.urls)
        return known if known is not None and expected in (None, digests(known)[0]) else None
    if expected is not None and digests(path)[0] != expected:
        raise FetchError(f"{path} has changed since it was fetched (sha256 is not {expected}); delete it")
    return path


def fetch(remote: RemoteWeights, *, folder: Path | None = None, progress: NamedProgress = silent) -> Path:
    """Fetch a file into the cache, check it, and return its path. Several processes may do so at once.

    Raises:
        FetchError: the address is wrong, the connection ends, or the file is not what it should be.
    """
    folder = folder or cache_folder()
    path = folder / _cache_name(remote)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive(folder / f".{path.name}.lock"):
            if not path.is_file():  # another process may have fetched it meanwhile
                _receive(remote, path, progress)
    except OSError as error:
        raise FetchError(
            f"{folder}: cannot be written ({error.strerror or error}); set {HOME_VARIABLE} to a folder that can"
        ) from error
    return path


def _receive(remote: RemoteWeights, path: Path, progress: NamedProgress) -> None:
    incoming = path.with_name(f"incoming-{path.name}")
    if remote.licence:
        logger.warning("%s: licence %s; please cite: %s", remote.name, remote.licence, remote.citation)
    failures = []
    for url in remote.urls:
        is_last = url == remote.urls[-1]
        try:
            download(
                url,
                incoming,
                size=remote.size,
                most=MOST_BYTES,
                verified_later=remote.sha256 is not None,
                token=hub_token(url),
                attempts=ATTEMPTS if is_last else 1,  # before the next address
                progress=progress(path.name),
            )
            break
        except DownloadError as error:
            failures.append(str(error))
    else:
        raise FetchError(f"{remote.name} could not be fetched: {'; '.join(failures)}. See {remote.page}")
    try:
        _check(remote, incoming, path.name)
    except (CheckpointError, LockError) as error:
        incoming.unlink()
        reason = str(error).replace(str(incoming), path.name).rstrip(".")
        raise FetchError(f"{remote.name}: what was fetched is not used: {reason}. See {remote.page}") from error
    incoming.replace(path)


def _check(remote: RemoteWeights, incoming: Path, name: str) -> None:
    """Compare with what is known of the file, and make sure that it holds a network of ours."""
    size, (sha256, _) = incoming.stat().st_size, digests(incoming)
    if remote.sha256 is not None and sha256 != remote.sha256:
        kind = content_kind(incoming)
        raise CheckpointError(f"sha256 {sha256}, expected {remote.sha256}" + (f"; it is {kind}" if kind else ""))
    checkpoint = read_checkpoint(incoming)
    try:
        recognise(checkpoint)
    except CheckpointError:
        if load_other_family(checkpoint) is None:
            raise
    if _lock(incoming.parent).admit(name, remote.urls[0], size, sha256) and remote.sha256 is None:
        logger.info("%s: no public source states its checksum; sha256 %s is recorded", remote.name, sha256)


def _cache_name(remote: RemoteWeights) -> str:
    """The name in the cache; files of one name at different addresses stay apart."""
    if remote.licence:  # of the table, where each file has a name of its own
        return remote.file
    address = remote.name if remote.name.startswith(HUB_PREFIX) else remote.urls[0]  # with its query
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return f"{Path(remote.file).stem}-{digest}{Path(remote.file).suffix}"


def _lock(folder: Path) -> LockFile:
    try:
        return LockFile(folder / LOCK_NAME)
    except LockError as error:
        raise FetchError(str(error)) from error


def is_offline() -> bool:
    """Whether ``MAMBAIR_OFFLINE`` forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() not in ("", "0", "false", "no")
