"""Scores measured before, on disk: one line of JSON for each image, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAME = "journal.jsonl"
VERSION = 2  # of the meaning of a line; lines of other versions are ignored


class ScoreCache:
    """An append-only table on disk, one line of JSON for each entry.

    A line cut off by a crash is ignored, and two processes may append at once.

    Args:
        path: the file; created by the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._is_torn = False
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._is_torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                self._take(line)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> dict[str, Any] | None:
        """The entry under ``key``, if there is one."""
        return self._entries.get(key)

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is on disk when this returns."""
        line = json.dumps({"key": key, "version": VERSION, **entry}) + "\n"
        if self._is_torn:
            line, self._is_torn = "\n" + line, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
        self._entries[key] = dict(entry)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, dict) and entry.pop("version", None) == VERSION and isinstance(entry.get("key"), str):
            self._entries[entry.pop("key")] = entry


def key_of(parts: Iterable[Any]) -> str:
    """A short name for everything that a measurement depends on."""
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(image: Tensor) -> str:
    """A name for the shape and the pixels of an image on the CPU."""
    pixels = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
    return f"{list(image.shape)} {pixels}"
