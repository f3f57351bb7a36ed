"""The manifest: a line of JSON for each result or failure, appended by any number of processes, and what it proves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mambair.system.errors import RequestError
from mambair.system.jsonl import JsonLines
from mambair.system.path_gate import UnsafePathError

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"


class Manifest:
    """A file of records, one JSON object on a line, each with ``output`` (the result's name) and ``status``.

    Args:
        path: it need not be there; what is there is kept, and its last record of each output counts.

    Raises:
        RequestError: the file is no manifest, and would be spoilt.
        OSError: it cannot be read and written.

    A line that a killed process left half written is passed over, and the next record begins on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._last: dict[str, dict[str, Any]] = {}
        self._new: set[str] = set()
        try:
            has_lines = self.refresh()
            is_foreign = self._lines.is_foreign() or (has_lines and not self._last)
        except UnsafePathError as error:
            raise RequestError(f"manifest: {error}, or name another file") from None
        if is_foreign:
            raise RequestError(f"manifest: {path} holds something else; name another file")
        self._new.clear()

    def refresh(self) -> bool:
        """Take in what other processes have appended; return whether there was anything.

        Raises:
            OSError: the file cannot be read.
        """
        lines = self._lines.new()
        for record in lines:
            if record is not None and isinstance(record.get("output"), str) and "status" in record:
                self._last[record["output"]] = record
                self._new.add(record["output"])
        return bool(lines)

    def last(self, output: str) -> dict[str, Any] | None:
        """The latest record of a result, as far as ``refresh`` has read."""
        return self._last.get(output)

    def is_new(self, output: str) -> bool:
        """Whether that record was appended since this manifest was opened, by whomever."""
        return output in self._new

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, durably, on a line of its own.

        Raises:
            AppendError: it cannot be written.
        """
        self._lines.append(record)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
