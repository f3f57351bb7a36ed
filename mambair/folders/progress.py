"""What a run over files has done, for people: a bar while it lasts, a summary at its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from mambair.folders.plan import Job, printable


@dataclass
class Report:
    """What was done: targets written, sources passed over because their result is there, sources that failed and why.

    Attributes:
        total: files there were to do.
        others: results that other processes made meanwhile.
        megapixels: of the images that were restored, before they were enlarged.
        seconds: of the whole run.
    """

    total: int
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    interrupted: bool = False
    megapixels: float = 0.0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every file was restored or had been."""
        return not self.failed and not self.interrupted

    def summary(self) -> str:
        """One line."""
        rate = f"{len(self.written) / self.seconds:.2f} files/s, {self.megapixels / self.seconds:.3f} megapixels/s"
        done = f"{len(self.written)} of {self.total} images restored in {self.seconds:.1f} s"
        parts = [f"{done} ({rate})" if self.written else done]
        if self.skipped:
            parts.append(f"{len(self.skipped)} were there already")
        if self.others:
            parts.append(f"{len(self.others)} were done by other processes")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.interrupted:
            parts.append("interrupted")
        return ", ".join(parts)


class ProgressBar:
    """A bar on standard error with files/s, megapixels/s and the time left, which is judged by the bytes of the files.

    Args:
        jobs: all there is to do.
        quiet: show nothing.
    """

    def __init__(self, jobs: Sequence[Job], quiet: bool) -> None:
        self._started = time.perf_counter()
        self._bytes = {job: _size(job.source) for job in jobs} if not quiet else {}
        self._parts: dict[Job, float] = {}  # of the images that are being restored
        self._all, self._done = sum(self._bytes.values()), 0
        self._restored_bytes, self._restored, self._megapixels, self._settled = 0, 0, 0.0, 0
        self._bar = tqdm(
            total=len(jobs),
            disable=quiet,
            file=sys.stderr,
            # a log file needs no ten lines a second
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            bar_format="{l_bar}{bar}| {n:.1f}/{total} images [{elapsed}{postfix}]",
        )

    def begin(self, job: Job) -> None:
        """The name of what is restored now, also where others are."""
        self._bar.set_description(printable(job.source.name), refresh=False)

    def tile(self, job: Job, done: int, total: int) -> None:
        """So many tiles of an image are done."""
        self._parts[job] = min(done / total, 0.99)
        self._move()

    def settle(self, job: Job, megapixels: float | None = None) -> None:
        """A file is done with; ``megapixels`` if it was restored."""
        size = self._bytes.get(job, 0)
        self._parts.pop(job, None)
        self._settled, self._done = self._settled + 1, self._done + size
        if megapixels is not None:
            self._restored, self._megapixels = self._restored + 1, self._megapixels + megapixels
            self._restored_bytes += size
        self._bar.set_postfix_str(self._rates(), refresh=False)
        self._move()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.refresh()
        self._bar.close()

    def _move(self) -> None:
        self._bar.update(max(self._settled + sum(self._parts.values()) - self._bar.n, 0))

    def _rates(self) -> str:
        elapsed = time.perf_counter() - self._started
        rates = f"{self._restored / elapsed:.2f} files/s, {self._megapixels / elapsed:.3f} megapixels/s"
        if not self._restored_bytes:
            return rates
        left = (self._all - self._done) * elapsed / self._restored_bytes
        return f"{rates}, {tqdm.format_interval(left)} left"


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116, ten thousand at once
    except OSError:
        return 0
