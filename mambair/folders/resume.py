"""What has been done in an output folder and who is at work there: the manifest and the claims, as one."""

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
from mambair.folders.manifest import DONE, FAILED, NAME, Manifest
from mambair.folders.plan import Job

_TRACEBACK = 20_000  # characters of it in a record
_STAMP_OF_OLD = ("bytes", "modified_ns")  # of manifests without digests


class State(Enum):
    """What is known of a result."""

    OPEN = "to be done"
    DONE = "done as it would be now"
    DONE_BY_OTHERS = "done since this process began"
    FAILED_FOR_OTHERS = "failed in another process since this one began"
    UNSURE = "one of the above: the input's digest decides"


class Ledger:
    """Claims and records of one output folder.

    A result counts as done if the manifest says that it was made from the same input with the same settings, and it is
    still there with the size it had. An input is the same if its content is (SHA-256), wherever it lies; a file that
    nobody has touched since (path, size, times, inode) is not read again.

    Args:
        folder: the output folder; claims lie in its hidden folder ``.mambair``.
        settings: what decides on the pixels of a result: weights, tile, dtype, ...
        facts: further entries of each record: device, backend, ...
        manifest: where records go; by default ``manifest.jsonl`` in ``folder``.
        overwrite: whether what was done before this process began counts for nothing.
        details: also record host, process and the whole path of each input, and tracebacks of failures.

    Raises:
        RequestError: the manifest would be something else.
        OSError: it cannot be read, or a link leads the claims out of the folder (UnsafePathError).
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        facts: Mapping[str, Any] | None = None,
        manifest: Manifest | None = None,
        overwrite: bool = False,
        details: bool = False,
    ) -> None:
        self.folder = folder
        file_locks.check_claims(folder)
        self.manifest = Manifest(folder / NAME) if manifest is None else manifest
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._common = {**(facts or {}), **settings, "settings": self.settings}
        self.overwrite, self.details = overwrite, details

    def claim(self, job: Job) -> Claim | None:
        """The claim on a job's result, or None where another process has it.

        What a dead process had finished but not recorded is recorded now.
        """
        name = self.name(job)
        claim = file_locks.try_claim(self.folder, name)
        if claim is None or claim.intent is None:
            return claim
        try:
            record = claim.intent.get("record")
            if not isinstance(record, dict) or record.get("output") != name:  # not written by us
                return claim
            if _is_present(job.target, claim.intent.get("file")):
                self.manifest.refresh()
                if self.manifest.last(name) != record:
                    self.manifest.append(record)
        except BaseException:
            claim.release()
            raise
        return claim

    def state(self, job: Job, sha256: str | None = None) -> State:
        """What is known of a job's result; ask it with the claim in hand, so that it stays true.

        Args:
            job: of the plan.
            sha256: the digest of the input; without it the answer may be ``UNSURE``.
        """
        self.manifest.refresh()
        name = self.name(job)
        record, is_new = self.manifest.last(name), self.manifest.is_new(name)
        if record is None or record.get("settings") != self.settings:
            return State.OPEN
        if record["status"] == FAILED:
            state = State.FAILED_FOR_OTHERS if is_new else State.OPEN
        elif record["status"] != DONE or _stamp(job.target).get("bytes", -1) != record.get("bytes"):
            state = State.OPEN
        elif is_new:
            state = State.DONE_BY_OTHERS
        else:
            state = State.OPEN if self.overwrite else State.DONE
        if state is State.OPEN:
            return state
        is_same = _is_same_input(record, job, sha256)
        return State.UNSURE if is_same is None else state if is_same else State.OPEN

    def replaces_another(self, job: Job, sha256: str) -> bool:
        """Return whether the result that is there was made from another input than the one of this digest."""
        record = self.manifest.last(self.name(job))
        if record is None or record["status"] != DONE or not job.target.exists():
            return False
        return _recorded(record).get("sha256", sha256) != sha256

    def is_unknown(self, job: Job) -> bool:
        """Return whether a file is in the place of the result that no record accounts for."""
        return self.manifest.last(self.name(job)) is None and os.path.lexists(job.target)

    def reason(self, job: Job) -> str:
        """Why a job failed for others."""
        return str((self.manifest.last(self.name(job)) or {}).get("error", ""))

    def stamp(self, job: Job) -> dict[str, Any]:
        """What tells whether an input was touched; take it before reading, and record it with the digest."""
        return _stamp(job.source)

    def intend(
        self, claim: Claim, job: Job, complete: os.stat_result, source: Mapping[str, Any], entries: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Before a complete file is renamed to the result: make its record survive this process.

        Args:
            claim: on the job's result.
            job: of the plan.
            complete: the status of that file.
            source: ``stamp`` of the input, and its ``sha256``.
            entries: further entries of the record.

        Returns:
            The record, to be appended to the manifest.
        """
        record = self._record(job, DONE, {**entries, "bytes": complete.st_size}, source)
        claim.intend({"file": _identity(complete), "record": record})
        return record

    def failed(self, job: Job, error: str, trace: str, source: Mapping[str, Any]) -> None:
        """Record a failure."""
        if self.details:
            entries = {"error": error, "traceback": trace[-_TRACEBACK:]}
        else:
            for folder in (job.source.parent, self.folder):
                error = error.replace(f"{folder}{os.sep}", "")
            entries = {"error": error}
        self.manifest.append(self._record(job, FAILED, entries, source))

    def close(self) -> None:
        """Close the manifest, and remove the folder of claims if nobody else is at work."""
        self.manifest.close()
        file_locks.remove_folder(self.folder)

    def name(self, job: Job) -> str:
        """What the manifest calls a job's result: its path in the output folder."""
        return Path(os.path.relpath(job.target, self.folder)).as_posix()

    def _record(self, job: Job, status: str, entries: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        start = {"input": job.name, "output": self.name(job), "status": status}
        record = {**start, **entries, "source": dict(source), **self._common, "time": now}
        if self.details:
            record |= {"host": platform.node(), "process": os.getpid(), "path": str(job.source.absolute())}
        return record


def _is_same_input(record: Mapping[str, Any], job: Job, sha256: str | None) -> bool | None:
    """Return whether a record was made from the job's input; None if only the digest can tell."""
    recorded, present = _recorded(record), _stamp(job.source)
    if sha256 is not None and "sha256" in recorded:
        return recorded["sha256"] == sha256
    keys = _STAMP_OF_OLD if "sha256" not in recorded else tuple(present)
    is_untouched = bool(present) and all(recorded.get(key) == present[key] for key in keys)
    if "sha256" not in recorded or recorded.get("bytes") != present.get("bytes"):
        return is_untouched
    return True if is_untouched and record.get("input") == job.name else None


def _recorded(record: Mapping[str, Any]) -> Mapping[str, Any]:
    source = record.get("source")
    return source if isinstance(source, dict) else {}


def _stamp(path: Path) -> dict[str, Any]:
    """What changes when a file is changed or replaced; nothing if it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return {
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _identity(status: os.stat_result) -> list[int]:
    """What stays when a file is renamed, and what another file of that name would not have."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _is_present(path: Path, identity: object) -> bool:
    try:
        return identity == _identity(path.stat(follow_symlinks=False))
    except OSError:
        return False
