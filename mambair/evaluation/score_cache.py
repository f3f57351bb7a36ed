"""Scores measured before, on disk: one line of JSON for each image, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambair.system.jsonl import JsonLines
from mambair.system.tables import NOT_FINITE, jsonable

if TYPE_CHECKING:
    from torch import Tensor

NAME = "journal.jsonl"
VERSION = 2  # of the meaning of a line; lines of other versions are ignored


class ScoreCache:
    """An append-only table on disk, one line of JSON for each entry; several processes may append at once.

    A line that a crash cut off, or that is no entry, is ignored.

    Args:
        path: the file; created by the first entry.

    Raises:
        OSError: it cannot be read (UnsafePathError: it is a link or no regular file).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path)
        self._entries: dict[str, dict[str, Any]] = {}
        for line in self._lines.new():
            if line is not None and _is_entry(line):
                self._entries[line["key"]] = _without_texts(line)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> dict[str, Any] | None:
        """The entry under ``key``, if there is one."""
        return self._entries.get(key)

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is on disk when this returns.

        Args:
            key: see `key_of`.
            entry: ``scores`` (numbers by metric), ``seconds``, ``machine``, and what else belongs to it.

        Raises:
            AppendError: it cannot be written.
        """
        self._lines.append(jsonable({"key": key, "version": VERSION, **entry}))
        self._entries[key] = dict(entry)


def _is_entry(line: Mapping[str, Any]) -> bool:
    scores = line.get("scores")
    return (
        line.get("version") == VERSION
        and all(isinstance(line.get(name), str) for name in ("key", "machine"))
        and isinstance(line.get("seconds"), int | float)
        and isinstance(scores, dict)
        and all(isinstance(score, int | float) or score in NOT_FINITE for score in scores.values())
    )


def _without_texts(line: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a line, with the scores that `jsonable` wrote as texts as numbers again."""
    entry = {name: value for name, value in line.items() if name not in ("key", "version")}
    return {**entry, "scores": {name: float(score) for name, score in line["scores"].items()}}


def key_of(parts: Iterable[Any]) -> str:
    """A short name for everything that a measurement depends on."""
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(image: Tensor) -> str:
    """A name for the shape and the pixels of an image on the CPU."""
    pixels = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
    return f"{list(image.shape)} {pixels}"
