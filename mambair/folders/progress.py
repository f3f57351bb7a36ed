"""What a run over files has done, for people: a bar while it lasts, a summary at its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mambair.folders.plan import Job
from mambair.system.console import is_terminal, note, printable, progress_bar

_LONG = 60.0  # seconds from which on an image's time is announced
_VERY_LONG = 300.0  # seconds from which on cheaper ways are named, too
_LARGE = 100.0  # megapixels of a result from which on they are named


@dataclass
class Report:
    """What was done: targets written, sources passed over because their result is there, sources that failed and why.

    Attributes:
        total: files there were to do.
        others: results that other processes made meanwhile.
        left: files that were not done, as the run was stopped or interrupted.
        stopped: why nothing more could be written, if the run ended for that: the disk is full.
        resampled: results among those written that the network had no part in.
        megapixels: of the images that were restored, before they were enlarged.
        seconds: of the whole run.
    """

    total: int
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    stopped: str | None = None
    interrupted: bool = False
    resampled: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every file was restored or had been."""
        return not self.failed and not self.interrupted and self.stopped is None

    def summary(self) -> str:
        """One line."""
        rate = f"{len(self.written) / self.seconds:.2f} files/s, {self.megapixels / self.seconds:.3f} megapixels/s"
        done = f"{len(self.written)} of {self.total} images restored in {self.seconds:.1f} s"
        parts = [f"{done} ({rate})" if self.written else done]
        if self.resampled:
            parts.append(f"{self.resampled} of them resampled without the network")
        if self.skipped:
            parts.append(f"{len(self.skipped)} were there already")
        if self.others:
            parts.append(f"{len(self.others)} were done by other processes")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.stopped is not None:
            parts.append(f"{len(self.left)} are left, as {self.stopped}; the same command goes on with them")
        if self.interrupted:
            parts.append("interrupted")
        return ", ".join(parts)


class ProgressBar:
    """A bar on standard error with files/s, megapixels/s and the time left.

    The time left is judged by the bytes of the files that are done, and by the tiles of those on their way.

    Args:
        jobs: all there is to do.
        quiet: show nothing.
        cheaper: what is quicker or smaller, said where a result is large or takes long.
    """

    def __init__(self, jobs: Sequence[Job], quiet: bool, cheaper: str = "") -> None:
        self._cheaper = cheaper
        self._started = time.perf_counter()
        self._quiet, self._is_single = quiet, len(jobs) == 1
        self._bytes = {job: _size(job.source) for job in jobs} if not quiet else {}
        self._parts: dict[Job, float] = {}  # of the images that are being restored
        self._first_tiles: tuple[float, int] | None = None  # of a single image: when how many were done
        self._all, self._done = sum(self._bytes.values()), 0
        self._restored_bytes, self._restored, self._megapixels, self._settled = 0, 0, 0.0, 0
        self._bar = progress_bar(
            len(jobs), bar_format="{l_bar}{bar}| {n:.1f}/{total} images [{elapsed}{postfix}]", quiet=quiet
        )

    def begin(self, job: Job) -> None:
        """The name of what is restored now, also where others are."""
        self._bar.set_description(printable(job.source.name), refresh=False)

    def found_size(self, job: Job, megapixels: float) -> None:
        """The size of a result is known; the first large one is announced, on a terminal."""
        if megapixels > _LARGE and self._cheaper and not self._quiet and is_terminal(sys.stderr):
            note(f"{printable(job.source.name)}: the result will have {megapixels:.0f} megapixels; {self._cheaper}")
            self._cheaper = ""

    def tile(self, job: Job, done: int, total: int, megapixels: tuple[float, float]) -> None:
        """So many tiles of an image are done; ``megapixels`` of it and of its result."""
        self._parts[job] = min(done / total, 0.99)
        if self._is_single and not self._quiet:
            self._announce(job, done, total, megapixels)
        self._bar.set_postfix_str(self._rates(), refresh=False)
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

    def leave(self, job: Job) -> None:
        """A file is not done."""
        self._parts.pop(job, None)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.refresh()
        self._bar.close()

    def _announce(self, job: Job, done: int, total: int, megapixels: tuple[float, float]) -> None:
        """Say once how long a single image will take, if that is long: by the second tile, as the first warms up."""
        now = time.perf_counter()
        if self._first_tiles is None:
            self._first_tiles = now, done
            return
        since, before = self._first_tiles
        self._is_single = False
        seconds = (now - since) / max(done - before, 1) * total
        if seconds > _LONG:
            sizes = f"{megapixels[0]:.3g} -> {megapixels[1]:.3g} megapixels"
            cheaper = f"; {self._cheaper}" if self._cheaper and seconds > _VERY_LONG else ""
            note(f"{printable(job.source.name)}: {sizes}, about {seconds / 60:.0f} min (measured on one tile){cheaper}")

    def _move(self) -> None:
        self._bar.update(max(self._settled + sum(self._parts.values()) - self._bar.n, 0))

    def _rates(self) -> str:
        elapsed = max(time.perf_counter() - self._started, 1e-6)  # clocks may be coarse
        rates = f"{self._restored / elapsed:.2f} files/s, {self._megapixels / elapsed:.3f} megapixels/s"
        under_way = sum(part * self._bytes.get(job, 0) for job, part in self._parts.items())
        if not self._restored_bytes + under_way:
            return rates
        left = (self._all - self._done - under_way) * elapsed / (self._restored_bytes + under_way)
        return f"{rates}, {self._bar.format_interval(left)} left"


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116, ten thousand at once
    except OSError:
        return 0
