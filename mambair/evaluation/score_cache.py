"""What has been measured already, on disk: one line of JSON an image, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

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


FIELDS = {field.name for field in fields(Measurement)}


class Lines:
    """A table on disk, one line of JSON an entry; append-only.

    A line that a crash cut off is passed over, and two processes may append at once.

    Args:
        path: the file; made at the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._torn = False
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                self._take(line)

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is on disk when this returns."""
        line = json.dumps({"key": key, "version": VERSION, **entry}) + "\n"
        if self._torn:
            line, self._torn = "\n" + line, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
        self.entries[key] = dict(entry)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, dict) and entry.pop("version", None) == VERSION and isinstance(entry.get("key"), str):
            self.entries[entry.pop("key")] = entry


class Journal:
    """Measurements in a file.

    Args:
        path: the file; made at the first entry.
    """

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)
        self.path = path
        self._known: dict[str, Measurement] = {}
        for key, entry in self._lines.entries.items():
            if set(entry) == FIELDS:
                self._known[key] = Measurement(**entry)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> Measurement | None:
        """The measurement under ``key``, if there is one."""
        return self._known.get(key)

    def add(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement; it is on disk when this returns."""
        self._lines.add(key, asdict(measurement))
        self._known[key] = measurement


class ScoreJournal:
    """Scores of an evaluation in a file, for :func:`mambair.evaluation.evaluate.evaluate`.

    Args:
        path: the file; made at the first entry.
        settings: everything but the images that scores depend on: weights, tiles, metrics.
    """

    def __init__(self, path: Path, settings: Iterable[Any]) -> None:
        self._lines = Lines(path)
        self._settings = list(settings)

    def find(self, lq: Tensor, gt: Tensor) -> dict[str, float] | None:
        """Scores of an image, if they were kept."""
        entry = self._lines.entries.get(self._key(lq, gt))
        return None if entry is None else {name: float(value) for name, value in entry["scores"].items()}

    def add(self, lq: Tensor, gt: Tensor, scores: Mapping[str, float]) -> None:
        """Keep scores; they are on disk when this returns."""
        self._lines.add(self._key(lq, gt), {"scores": dict(scores)})

    def _key(self, *images: Tensor) -> str:
        digests = [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in images]
        return key_of([self._settings, [list(image.shape) for image in images], digests])


def key_of(parts: Iterable[Any]) -> str:
    """A short name for everything that a measurement depends on."""
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
