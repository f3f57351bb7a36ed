"""Output that cannot be written: said before anything is loaded, and where a disk fills up, the run stops in order."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from mambair.folders import output_check
from mambair.folders.output_check import checked_output
from mambair.folders.pipeline import Report, restore_files
from mambair.folders.plan import plan_jobs
from mambair.folders.resume import Ledger
from mambair.images import encode
from mambair.images.stream_writers import PngWriter
from mambair.inference.restorer import Restorer
from mambair.system.errors import RequestError


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty pictures of noise, of about 30 KB each as results."""
    (tmp_path / "in").mkdir()
    for number in range(40):
        values = np.random.default_rng(number).integers(0, 256, (60, 100, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "in" / f"{number}.png")
    return tmp_path / "in"


@pytest.fixture
def restorer(restorer: Restorer) -> Restorer:
    """One that calls its network once for each picture, which takes longer than writing it, as it does in life."""
    forward = restorer.net.forward

    def slowly(x: Tensor) -> Tensor:
        time.sleep(0.03)
        return forward(x)

    restorer.net.forward = slowly
    return Restorer(restorer.net, device="cpu", tile=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB in the folder ``out``."""
    (tmp_path / "out").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(tmp_path / "out")]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield tmp_path / "out"
    subprocess.run(["umount", "-l", str(tmp_path / "out")], check=True)


def run(restorer: Restorer, source: Path, out: Path, **options: Any) -> Report:
    return restore_files(restorer, plan_jobs(source, out), ledger=Ledger(out, {}), quiet=True, **options)


def check(source: Path, out: Path) -> None:
    for path in out.glob("*.png"):
        assert np.array_equal(
            np.array(Image.open(path)), np.array(Image.open(source / path.name)).repeat(2, 0).repeat(2, 1)
        )


def test_a_real_disk_that_fills_up(many: Path, small_disk: Path, restorer: Restorer) -> None:
    report = run(restorer, many, small_disk)
    assert report.stopped is not None and "No space left on device" in report.stopped
    assert not report.complete and not report.failed and 0 < len(report.written) < 20
    assert len(report.left) + len(report.written) == 40
    assert restorer.net.calls < 30, "nothing is computed that cannot be written"
    assert f"{len(report.left)} are left, as [Errno 28] No space left on device" in report.summary()
    assert not [path for path in small_disk.rglob(".*") if path.name != ".mambair"], "no half files"
    check(many, small_disk)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = run(restorer, many, small_disk)
    assert again.complete and len(again.written) == len(report.left) and len(again.skipped) == len(report.written)
    assert len(list(small_disk.glob("*.png"))) == 40
    check(many, small_disk)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        *((where, errno.ENOSPC) for where in ("open", "write", "rename", "claim", "manifest")),
        *(("write", number) for number in (errno.EDQUOT, errno.EROFS)),
    ],
)
def test_each_place_where_it_can_be_met(
    many: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    count = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > 6:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    from mambair.folders import file_locks
    from mambair.system import jsonl
    from mambair.system.path_gate import Folder

    owner, name = {
        "open": (Folder, "create"),
        "write": (PngWriter, "write"),
        "rename": (Folder, "rename"),
        "claim": (file_locks, "open_folder"),
        "manifest": (jsonl, "_append"),
    }[where]
    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        report = run(restorer, many, many.parent / "out")
    assert report.stopped is not None and os.strerror(number) in report.stopped
    assert not report.failed and len(report.written) <= 6 and restorer.net.calls <= 16
    out = many.parent / "out"
    assert not list(out.rglob("*.claim")) and not list(out.rglob(".*.tmp.*"))
    again = run(restorer, many, out)
    assert again.complete and len(again.written) + len(again.skipped) == 40
    check(many, out)


def test_another_error_of_one_file_does_not_stop_the_others(
    many: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = PngWriter.close
    streams: list[BinaryIO] = []

    def failing(self: PngWriter) -> None:
        streams.append(self._stream)
        if len(streams) == 3:
            raise OSError(errno.EFBIG, "File too large")
        close(self)

    monkeypatch.setattr(PngWriter, "close", failing)
    report = run(restorer, many, many.parent / "out")
    assert report.stopped is None and len(report.written) == 39
    assert [reason for _, reason in report.failed] == ["[Errno 27] File too large"]


# what stands at ``out``; why nothing can be written in ``out/results``
CHECKS: dict[str, tuple[str, str]] = {
    "dangling link": ("link", "is a broken link"),
    "file": ("file", "out is not a folder"),
    "proc": ("proc", "No such file or directory"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(("kind", "reason"), CHECKS.values(), ids=CHECKS)
def test_folders_that_cannot_be_made(many: Path, kind: str, reason: str) -> None:
    out = many.parent / "out"
    if kind == "link":
        out.symlink_to("nowhere")
    elif kind == "file":
        out.touch()
    folder = Path("/proc/mambair") if kind == "proc" else out / "results"
    with (
        pytest.raises(RequestError, match=f"output: nothing can be written in {folder}: .*{reason}"),
        checked_output(plan_jobs(many, folder)),
    ):
        pytest.fail("nothing is begun")
    assert kind != "link" or out.is_symlink()


def test_a_folder_without_permission(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(output_check, "open_folder", refuse)  # root, as whom tests may run, is never refused
    with (
        pytest.raises(RequestError, match="out: Permission denied"),
        checked_output(plan_jobs(many, many.parent / "out")),
    ):
        pytest.fail("nothing is begun")


def test_a_full_disk_and_one_that_may_be_too_small(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_jobs(many, many.parent / "out")
    usage = shutil.disk_usage(many)
    for free, notes in ((2**40, []), (2**20, []), (2**20 - 1, None)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if notes is None:
            with (
                pytest.raises(RequestError, match=r"the disk of .*out is full \(1048575 bytes are free\)"),
                checked_output(plan),
            ):
                pytest.fail("nothing is begun")
        else:
            with checked_output(plan) as found:
                assert found == notes
    monkeypatch.setattr(output_check, "_LEAST", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with checked_output(plan) as found:
        assert found == [f"the inputs have 0.0 GB, and 0.0 GB are free in {many.parent / 'out'}"]


def test_a_format_that_this_pillow_cannot_write(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode.features, "check", lambda name: False)
    with (
        pytest.raises(RequestError, match="format: this installation of Pillow cannot write avif; use png or webp"),
        checked_output(plan_jobs(many, many.parent / "out", format="avif")),
    ):
        pytest.fail("nothing is begun")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_check_leaves_nothing_but_what_was_written(many: Path, depth: int) -> None:
    out = many.parent.joinpath(*"abc"[:depth])
    with checked_output(plan_jobs(many, out)):
        assert out.is_dir() and list(out.iterdir()) == []
    assert not (many.parent / "a").exists()
    with checked_output(plan_jobs(many, out)):
        (out / "result").touch()
    assert [path.name for path in out.iterdir()] == ["result"]
