"""The lock file of downloads: what each file was when it was first fetched, so that a later one must be the same."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import read_json
from mambair.system.web_connections import recorded_address

LOCK_NAME = "downloads.lock.json"
_CHUNK = 2**20


class LockError(ValueError):
    """The lock file cannot be read, or a file is not what it says."""


def digests(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, in hexadecimal."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


class LockFile:
    """Size and SHA-256 of every file fetched so far, and which parts are unpacked.

    Args:
        path: a JSON file; it need not be there.

    Raises:
        LockError: it is there and cannot be understood.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, dict[str, Any]] = {}
        self._unpacked: dict[str, int] = {}
        if not path.exists():
            return
        try:
            content = read_json(path)
            self._files = {name: _checked(name, entry) for name, entry in content["files"].items()}
            self._unpacked = {part: _count(part, images) for part, images in content["unpacked"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise LockError(f"{path} cannot be read ({error}); put it back as it was, or remove it") from None

    def sha256(self, name: str) -> str | None:
        """The recorded digest of a file, if it was fetched before."""
        return self._files.get(name, {}).get("sha256")

    def admit(self, name: str, url: str, size: int, sha256: str) -> bool:
        """Record a file that is new, or compare it with what was recorded. Returns whether it is new.

        Raises:
            LockError: it differs from the first one.
        """
        known = self._files.get(name)
        if known is None:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            self._files[name] = {"url": recorded_address(url), "size": size, "sha256": sha256, "recorded": today}
            self._write()
            return True
        if (known.get("size"), known.get("sha256")) != (size, sha256):
            raise LockError(
                f"{name} is not the file that was first fetched: {size} bytes, sha256 {sha256}, but {self.path} has "
                f"{known.get('size')} bytes, sha256 {known.get('sha256')} of {known.get('recorded')}. If its authors "
                "changed it and you trust the new one, remove its entry there"
            )
        return False

    def unpacked(self, part: str) -> int:
        """How many images of a part were unpacked; 0 if it was not."""
        return self._unpacked.get(part, 0)

    def record_unpacked(self, part: str, images: int) -> None:
        """Remember that a part is unpacked whole."""
        self._unpacked[part] = images
        self._write()

    def _write(self) -> None:
        content = {"files": dict(sorted(self._files.items())), "unpacked": dict(sorted(self._unpacked.items()))}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _checked(name: str, entry: Any) -> dict[str, Any]:
    """An entry with a size and a SHA-256 that files can be compared with."""
    if not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"the sha256 of {name!r} must be 64 hexadecimal digits")
    _count(name, entry["size"])
    return dict(entry)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"the number of {name!r} must be an integer, got {value!r}")
    return value
