"""The manifest: a line of JSON for each result or failure, appended by any number of processes, and what it proves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"


class ManifestError(ValueError):
    """A file that was named as manifest is something else."""


class Manifest:
    """A file of records, one JSON object on a line, each with ``output`` (the result's name) and ``status``.

    Args:
        path: it need not be there; what is there is kept, and its last record of each output counts.

    Raises:
        ManifestError: the file is no manifest, and would be spoilt.
        OSError: it cannot be read.

    A line that a killed process left half written is passed over, and the next record begins on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0
        self._last: dict[str, dict[str, Any]] = {}
        self._new: set[str] = set()
        if path.is_dir():
            raise ManifestError(f"manifest: {path} is a folder; name a file")
        self.refresh()
        if self._read_to and not self._last:
            raise ManifestError(f"manifest: {path} holds something else; name another file")
        self._new.clear()

    def refresh(self) -> None:
        """Take in what other processes have appended."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._read_to)
                data = stream.read()
        except FileNotFoundError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self._read_to += len(complete)
        for line in complete.splitlines():
            record = _parsed(line)
            if record is not None:
                self._last[record["output"]] = record
                self._new.add(record["output"])

    def last(self, output: str) -> dict[str, Any] | None:
        """The latest record of a result, as far as ``refresh`` has read."""
        return self._last.get(output)

    def is_new(self, output: str) -> bool:
        """Whether that record was appended since this manifest was opened, by whomever."""
        return output in self._new

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, durably, on a line of its own."""
        # ASCII, with names of any bytes as escapes
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end:
                os.lseek(descriptor, end - 1, os.SEEK_SET)
                line = line if os.read(descriptor, 1) == b"\n" else b"\n" + line
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("output"), str) and "status" in record
    return record if is_record else None
