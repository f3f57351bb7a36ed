"""The time left, and what is said of an image that takes long."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mambair.folders import pipeline
from mambair.folders.finish import Finish, cheaper_ways
from mambair.folders.pipeline import restore_files
from mambair.folders.plan import Job, plan_jobs
from mambair.folders.progress import ProgressBar
from mambair.folders.resume import Ledger
from mambair.folders.target_size import TargetSize
from mambair.inference.restorer import Restorer


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    for name, size in (("a.png", 3000), ("b.png", 1000)):
        (tmp_path / name).write_bytes(bytes(size))
    return [Job(tmp_path / name, tmp_path / "out" / name) for name in ("a.png", "b.png")]


def test_the_time_left_counts_the_tiles_of_what_is_on_its_way(clock: Clock, jobs: list[Job]) -> None:
    bar = ProgressBar(jobs, quiet=False)
    assert "left" not in bar._rates()
    clock.now += 10
    bar.tile(jobs[0], 1, 3, (1.0, 16.0))  # 1000 of 4000 bytes
    assert bar._rates().endswith(", 00:30 left")
    clock.now += 10
    bar.tile(jobs[0], 2, 3, (1.0, 16.0))
    assert bar._rates().endswith(", 00:20 left")
    clock.now += 10
    bar.settle(jobs[0], 1.0)
    assert bar._rates() == "0.03 files/s, 0.033 megapixels/s, 00:10 left"
    bar.close()


@pytest.mark.parametrize(
    ("seconds", "tiles", "count", "said"),
    [
        ([30, 3, 3], [1, 2, 3], 1, "a.png: 48 -> 195 megapixels, about 5 min (measured on one tile)\n"),
        ([30, 6, 6], [2, 4, 6], 1, "a.png: 48 -> 195 megapixels, about 5 min (measured on one tile)\n"),
        ([30, 0.5, 0.5], [1, 2, 3], 1, ""),
        ([30], [1], 1, ""),
        ([30, 3, 3], [1, 2, 3], 2, ""),
    ],
    ids=["long", "in batches", "short", "one tile", "of several"],
)
def test_an_image_that_takes_long_is_announced(
    seconds: list[float],
    tiles: list[int],
    count: int,
    said: str,
    clock: Clock,
    jobs: list[Job],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """100 tiles of 3 s each, after a first one that warms up; a log, so the bar itself is shown seldom."""
    bar = ProgressBar(jobs[:count], quiet=False)
    for passed, done in zip(seconds, tiles, strict=True):
        clock.now += passed
        bar.tile(jobs[0], done, 100, (48.0, 195.0))
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines(keepends=True) if "about" in line]
    assert "".join(lines) == said
    bar.close()


def test_a_quiet_bar_says_nothing(clock: Clock, jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(jobs[:1], quiet=True)
    for done in (1, 2, 3):
        clock.now += 100
        bar.tile(jobs[0], done, 100, (48.0, 195.0))
    bar.close()
    assert capsys.readouterr().err == ""


def test_who_is_waited_for_is_told_once(
    photos: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    other = Ledger(out, {})
    claims = [other.claim(job) for job in plan_jobs(photos, out).jobs[:2]]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        if sys._getframe(1).f_globals["__name__"] == pipeline.__name__:
            pauses.append(seconds)
            if len(pauses) == 4:
                for claim in claims:
                    assert claim is not None
                    claim.release()

    monkeypatch.setattr(pipeline, "_WAITING", -1.0)
    monkeypatch.setattr(time, "sleep", sleep)
    report = restore_files(restorer, plan_jobs(photos, out), ledger=Ledger(out, {}), quiet=True)
    assert report.complete and len(report.written) == 5 and len(pauses) == 4
    line = f"waiting for other processes, which are at work on 2 images: {photos / 'a.png'}, ...\n"
    assert capsys.readouterr().err.count(line) == 1


def test_what_others_hold_for_ever_is_given_up(
    photos: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    claims = [Ledger(out, {}).claim(job) for job in plan_jobs(photos, out).jobs[:2]]
    monkeypatch.setattr(pipeline, "_PATIENCE", 0.0)
    report = restore_files(restorer, plan_jobs(photos, out), ledger=Ledger(out, {}), quiet=True)
    assert [path.name for path in report.left] == ["a.png", "b.png"] and len(report.written) == 3
    assert not report.complete and not report.failed
    assert report.stopped == "other processes hold them, and finished none for 0 minutes"
    assert capsys.readouterr().err.count("stopped: other processes hold them, and finished none for 0 minutes\n") == 1
    for claim in claims:
        assert claim is not None
        claim.release()


GPU = "--device cuda on a machine with a GPU"


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("megapixels", "terminal", "quiet", "cheaper", "said"),
    [
        ([99.0, 101.0, 500.0], True, False, "cheaper: so", ["a.png: the result will have 101 megapixels; cheaper: so"]),
        ([99.0, 100.0], True, False, "cheaper: so", []),
        ([500.0], False, False, "cheaper: so", []),
        ([500.0], True, True, "cheaper: so", []),
        ([500.0], True, False, "", []),
    ],
    ids=["the first large one", "small", "a log", "quiet", "nothing is cheaper"],
)
def test_a_large_result_is_announced_on_a_terminal(
    megapixels: list[float],
    terminal: bool,
    quiet: bool,
    cheaper: str,
    said: list[str],
    jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = ProgressBar(jobs, quiet, cheaper)
    for each in megapixels:
        bar.found_size(jobs[0], each)
    bar.close()
    assert [line.strip() for line in stream.getvalue().splitlines() if "megapixels;" in line] == said


@pytest.mark.parametrize(("step", "named"), [(3, False), (40, True)])
def test_cheaper_ways_are_named_from_five_minutes_on(
    step: int, named: bool, clock: Clock, jobs: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = ProgressBar(jobs[:1], False, "cheaper: so")
    for done in (1, 2):
        clock.now += step
        bar.tile(jobs[0], done, 25, (48.0, 195.0))
    bar.close()
    assert ("(measured on one tile); cheaper: so" in capsys.readouterr().err) == named


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        ({}, None, [GPU, "--longest-side 4000 for a smaller file"]),
        ({"self_ensemble": True}, 2.0, ["without --self-ensemble an eighth of the time", GPU]),
    ],
)
def test_cheaper_ways(restorer: Restorer, settings: dict[str, Any], size: float | None, expected: list[str]) -> None:
    asked = Restorer(restorer.net, device="cpu", **settings)
    finish = Finish(None if size is None else TargetSize(size))
    first = "cheaper: --strength 0 resamples without the network, in seconds"
    assert cheaper_ways(asked, finish) == ", ".join([first, *expected])
