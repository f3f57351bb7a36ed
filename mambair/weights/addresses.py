"""Where published weights are on the web (addresses.json), and the mirrors that the environment names."""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mambair.system.bounded_reader import read_json
from mambair.system.web_connections import UnsafeAddressError, refuse_credentials, shown_address

TABLE = Path(__file__).with_name("addresses.json")
HUB = "https://huggingface.co"
HUB_PREFIX = "hub:"
PRETRAINED_FILE = "model.safetensors"  # of a folder or a repository that holds one network
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class FetchError(ValueError):
    """Weights that were named cannot be obtained; the message says what to do."""


@dataclass(frozen=True)
class RemoteWeights:
    """One file of weights on the web.

    Attributes:
        name: of the published network, or the address as it is shown.
        file: its name in the cache.
        urls: where it is; the later ones are mirrors.
        page: the page to look at if the address is wrong.
        licence, citation: of published networks; empty for other files.
        size, sha256: as a public source states them; None where none does.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    page: str
    licence: str = ""
    citation: str = ""
    size: int | None = None
    sha256: str | None = None


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return read_json(TABLE)


def names() -> list[str]:
    """The published networks of which an address is known, sorted."""
    return sorted(_table()["weights"])


def published(name: str) -> RemoteWeights | None:
    """The file of a published network, by its full name; None where no address is known.

    Names of one network, as the backbones have them, have one file.
    """
    name = _table()["same"].get(name, name)
    entry = _table()["weights"].get(name)
    if entry is None:
        return None
    source = _table()["sources"][entry["source"]]
    addresses = [source[key].format_map(entry) for key in ("address", "mirror") if key in source]
    if hub_endpoint() != HUB:  # who names a mirror of the hub wants it used
        addresses.sort(key=lambda address: not address.startswith(f"{HUB}/"))
    return RemoteWeights(
        name,
        entry["file"],
        tuple(_at_endpoint(address) for address in addresses),
        source["page"],
        source["licence"],
        source["citation"],
        entry.get("size"),
        entry.get("sha256"),
    )


def is_address(text: str) -> bool:
    """Whether a text names a file on the web: ``https://...`` or ``hub:owner/repository/file``."""
    return text.startswith((HUB_PREFIX, "https://", "http://"))


def is_repository(text: str) -> bool:
    """Whether a text could name a repository on the hub: ``owner/repository``, and no file of weights."""
    from mambair.weights.checkpoint import SUFFIXES  # imports torch

    parts = text.split("/")
    return len(parts) == 2 and all(map(_PLAIN_NAME.fullmatch, parts)) and not parts[1].endswith(SUFFIXES)


def of_address(text: str) -> RemoteWeights:
    """The file that an address names.

    Args:
        text: ``https://host/path/file.pth``, or ``hub:owner/repository/path/file.safetensors`` for a file of the main
            branch on the Hugging Face hub (or at ``HF_ENDPOINT``); ``hub:owner/repository`` for its model.safetensors.

    Raises:
        FetchError: neither of them, an address without encryption or with a user name, or a file name with other
            characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if text.startswith(HUB_PREFIX):
        parts = text.removeprefix(HUB_PREFIX).split("/")
        if is_repository("/".join(parts)):
            parts.append(PRETRAINED_FILE)
        if len(parts) < 3 or not all(map(_PLAIN_NAME.fullmatch, parts)):
            raise FetchError(f"{text!r}: expected hub:OWNER/REPOSITORY/FILE or hub:OWNER/REPOSITORY")
        page = f"{HUB}/{parts[0]}/{parts[1]}"
        return RemoteWeights(text, parts[-1], (_at_endpoint(f"{page}/resolve/main/{'/'.join(parts[2:])}"),), page)
    shown = shown_address(text)
    try:
        refuse_credentials(text)
        split = urllib.parse.urlsplit(text)
    except (UnsafeAddressError, ValueError) as error:
        raise FetchError(f"{shown!r}: {error}") from None
    if split.scheme != "https" or not split.hostname:
        raise FetchError(f"{shown!r}: expected an address that begins with https:// and names a host")
    file = urllib.parse.unquote(split.path).rpartition("/")[2]
    if not _PLAIN_NAME.fullmatch(file):
        raise FetchError(f"{shown!r}: expected an address that ends in the name of a file")
    return RemoteWeights(shown, file, (text,), f"{split.scheme}://{split.netloc}")


def _at_endpoint(address: str) -> str:
    """The same file at the mirror of the hub that HF_ENDPOINT names, if it does."""
    return hub_endpoint() + address.removeprefix(HUB) if address.startswith(f"{HUB}/") else address


def hub_endpoint() -> str:
    """The hub, or the mirror of it that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
