"""What has been measured already, on disk: one line of JSON an image, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VERSION = 1  # of what a line means: another one makes old lines unknown


@dataclass(frozen=True)
class Measurement:
    """One image restored by one method.

    Attributes:
        method, dataset, image, level: what was measured.
        psnr, ssim: on 8 bits by the suite's protocol; NaN where the output was not finite.
        seconds: that restoring took.
        picture: the restored image, relative to the journal's folder.
        machine: processor, versions and date.
    """

    method: str
    dataset: str
    image: str
    level: int
    psnr: float
    ssim: float
    seconds: float
    picture: str
    machine: str


class Journal:
    """Append-only; a line that a crash cut off is passed over, and two processes may append at once.

    Args:
        path: the file; made at the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Measurement] = {}
        self._torn = False
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                self._take(line)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> Measurement | None:
        """The measurement under ``key``, if there is one."""
        return self._known.get(key)

    def add(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement; it is on disk when this returns."""
        line = json.dumps({"key": key, "version": VERSION, **asdict(measurement)}) + "\n"
        if self._torn:
            line, self._torn = "\n" + line, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
        self._known[key] = measurement

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key, version = entry.pop("key"), entry.pop("version")
            measurement = Measurement(**entry)
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if version == VERSION:
            self._known[key] = measurement


def key_of(parts: Iterable[Any]) -> str:
    """A short name for everything that a measurement depends on."""
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
