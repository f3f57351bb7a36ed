"""What has been done in an output folder and who is at work there: the manifest and the file_locks, as one."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from mambair.folders import file_locks
from mambair.folders.file_locks import Claim
from mambair.folders.manifest import DONE, FAILED, NAME, Manifest, ManifestError
from mambair.folders.plan import Job, is_within, real


class State(Enum):
    """What is known of a result."""

    OPEN = "to be done"
    DONE = "done as it would be now"
    DONE_BY_OTHERS = "done since this process began"
    FAILED_FOR_OTHERS = "tried in vain since this process began"


class Ledger:
    """Claims and records of one output folder.

    A result counts as done if the manifest says that it was made from the same input file (size and time of change)
    with the same settings, and it is still there with the size it had.

    Args:
        folder: the output folder; claims lie in its hidden folder ``.mambair``.
        settings: what decides on the pixels of a result: weights, tile, dtype, ...
        facts: further entries of each record: device, backend, ...
        manifest: where records go; by default ``manifest.jsonl`` in ``folder``.
        overwrite: whether what was done before this process began counts for nothing.

    Raises:
        ManifestError: the manifest would be something else, or a link leads it or the claims out of the folder.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        facts: Mapping[str, Any] | None = None,
        manifest: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder, self.claims = folder, folder / file_locks.FOLDER / "claims"
        for path in (self.claims, *([folder / NAME] if manifest is None else [])):
            if not is_within(real(path), real(folder)):
                raise ManifestError(f"output: the link {path} leads out of {folder}; remove it")
        self.manifest = Manifest(folder / NAME if manifest is None else manifest)
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._common = {**(facts or {}), **settings, "settings": self.settings}
        self._common |= {"host": platform.node(), "process": os.getpid()}
        self.overwrite = overwrite

    def claim(self, job: Job) -> Claim | None:
        """The claim on a job's result, or None where another process has it.

        What a dead process had finished but not recorded is recorded now.
        """
        claim = file_locks.try_claim(self.claims, self.name(job))
        if claim is not None and claim.intent is not None and claim.intent.get("file") == _identity(job.target):
            self.manifest.refresh()
            if self.manifest.last(self.name(job)) != claim.intent["record"]:
                self.manifest.append(claim.intent["record"])
        return claim

    def state(self, job: Job) -> State:
        """What is known of a job's result; ask it with the claim in hand, so that it stays true."""
        self.manifest.refresh()
        name = self.name(job)
        record, is_new = self.manifest.last(name), self.manifest.is_new(name)
        if record is None or record.get("settings") != self.settings or record.get("source") != _stamp(job.source):
            return State.OPEN
        if record["status"] == FAILED:
            return State.FAILED_FOR_OTHERS if is_new else State.OPEN
        target = _stamp(job.target)
        if record["status"] != DONE or target is None or record.get("bytes") != target["bytes"]:
            return State.OPEN
        if is_new:
            return State.DONE_BY_OTHERS
        return State.OPEN if self.overwrite else State.DONE

    def reason(self, job: Job) -> str:
        """Why a job failed for others."""
        return str((self.manifest.last(self.name(job)) or {}).get("error", ""))

    def intend(self, claim: Claim, job: Job, complete: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Before ``complete`` is renamed to the result: make its record survive this process. Returns the record."""
        record = self._record(job, DONE, {**entries, "bytes": complete.stat().st_size})
        claim.intend({"file": _identity(complete), "record": record})
        return record

    def failed(self, job: Job, entries: Mapping[str, Any]) -> None:
        """Record a failure."""
        self.manifest.append(self._record(job, FAILED, entries))

    def close(self) -> None:
        """Remove the folder of file_locks, if nobody else is at work."""
        file_locks.remove_folder(self.claims)

    def name(self, job: Job) -> str:
        """What the manifest calls a job's result: its path in the output folder."""
        return Path(os.path.relpath(job.target, self.folder)).as_posix()

    def _record(self, job: Job, status: str, entries: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        start = {"input": str(job.source), "output": self.name(job), "status": status}
        return {**start, **entries, "source": _stamp(job.source), **self._common, "time": now}


def _stamp(path: Path) -> dict[str, int] | None:
    """What changes when a file is changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return {"bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def _identity(path: Path) -> list[int] | None:
    """What stays when a file is renamed, and what another file of that name would not have."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]
