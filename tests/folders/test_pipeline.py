from __future__ import annotations

import _thread
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor, nn

from mambair.folders import pipeline as pipeline_module
from mambair.folders.pipeline import restore_files
from mambair.folders.plan import Job, Plan, plan_jobs
from mambair.folders.progress import ProgressBar
from mambair.folders.resume import Ledger
from mambair.folders.workers import Lanes
from mambair.images.files import DecodedImage, read_image, write_image
from mambair.images.stream_writers import PngWriter
from mambair.inference.restorer import Restorer
from mambair.system import jsonl
from mambair.system.path_gate import Folder

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Path:
    """Write a small random image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).integers(1, 256, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").convert(mode).save(path)
    return path


def files_in(folder: Path) -> list[str]:
    """All names under ``folder``, relative, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_tree_is_kept_and_png_is_written(tmp_path: Path, restorer: Restorer) -> None:
    for name in ("a.png", "sub/b.jpg", "sub/deeper/c.bmp", "with space/d'\".webp"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    picture(tmp_path / "in" / ".hidden.png")
    report = restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True)
    assert files_in(tmp_path / "out") == ["a.png", "sub/b.png", "sub/deeper/c.png", "with space/d'\".png"]
    assert report.complete and len(report.written) == 4
    source, target = read_image(tmp_path / "in/sub/b.jpg"), read_image(tmp_path / "out/sub/b.png")
    assert np.array_equal(target.pixels, source.pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_modes_survive(tmp_path: Path, restorer: Restorer, mode: str) -> None:
    source = picture(tmp_path / "in" / "a.png", mode)
    assert restore_files(
        restorer, Plan([Job(source, tmp_path / "out" / "a.png")], tmp_path / "out"), quiet=True
    ).complete
    image = read_image(tmp_path / "out" / "a.png")
    assert (image.mode, image.pixels.dtype, image.pixels.shape[:2]) == (mode, np.uint8, (8, 12))


@pytest.mark.parametrize(
    "dtype, ending, expected",
    [
        ("uint16", "png", "uint16"),
        ("float32", "png", "uint16"),
        ("float32", "tif", "float32"),
        ("uint16", "jpg", "uint8"),
    ],
)
def test_depth_is_kept_as_far_as_the_format_holds_it(
    tmp_path: Path, restorer: Restorer, dtype: str, ending: str, expected: str
) -> None:
    values = np.linspace(0, 1, 4 * 6 * 3).reshape(4, 6, 3)
    values = values if dtype == "float32" else values * 65535
    write_image(tmp_path / "a.tif", DecodedImage(values.astype(dtype)))
    assert restore_files(
        restorer, Plan([Job(tmp_path / "a.tif", tmp_path / f"out/a.{ending}")], tmp_path / "out"), quiet=True
    ).complete
    image = read_image(tmp_path / f"out/a.{ending}")
    assert image.pixels.dtype == expected
    white = 1 if expected == "float32" else np.iinfo(expected).max
    wanted = np.linspace(0, 1, 4 * 6 * 3).reshape(4, 6, 3).repeat(2, 0).repeat(2, 1)
    # one step of 16 bits; JPEG is lossy on such a small image
    assert np.abs(image.pixels / white - wanted).max() <= (0.3 if ending == "jpg" else 2 / 65535)


def test_profile_and_orientation(tmp_path: Path, restorer: Restorer) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.jpg", exif=exif, icc_profile=SRGB)
    assert restore_files(
        restorer, Plan([Job(tmp_path / "a.jpg", tmp_path / "out/a.png")], tmp_path / "out"), quiet=True
    ).complete
    image = read_image(tmp_path / "out/a.png")
    assert image.pixels.shape[:2] == (12, 8), "turned upright"
    assert image.icc_profile == SRGB


def test_what_reading_drops_is_in_the_manifest(
    tmp_path: Path, restorer: Restorer, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in" / "good.png")
    Image.new("RGB", (6, 4), "red").save(tmp_path / "in" / "profile.png", icc_profile=b"nothing")
    path = picture(tmp_path / "in" / "cut.bmp", size=(20, 20))
    path.write_bytes(path.read_bytes()[:-300])
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")

    def run(**how: bool) -> dict[str, dict[str, object]]:
        restore_files(restorer, plan, ledger=Ledger(plan.folder, {}), quiet=True, **how)
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        return {Path(record["input"]).name: record for record in map(json.loads, lines)}

    records = run()
    assert {name: record["status"] for name, record in records.items()} == {
        "good.png": "done",
        "profile.png": "done",
        "cut.bmp": "failed",
    }
    assert "notes" not in records["good.png"]
    assert records["profile.png"]["notes"] == ["a damaged colour profile was dropped (no ICC header)"]
    partial = "it is damaged or truncated: missing pixels are black"
    records = run(allow_truncated=True)
    assert (records["cut.bmp"]["status"], records["cut.bmp"]["notes"]) == ("done", [partial])
    assert f"cut.bmp: {partial}" in capsys.readouterr().err


def test_an_output_folder_inside_the_input_is_never_input(tmp_path: Path, restorer: Restorer) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    for _ in range(2):
        plan = plan_jobs(tmp_path, tmp_path / "sub" / "out")
        assert [job.source.name for job in plan.jobs] == ["a.png", "b.png"]
        assert restore_files(restorer, plan, quiet=True).complete
    assert files_in(tmp_path / "sub" / "out") == ["a.png", "sub/b.png"]
    assert plan.notes == ["2 images in the output folder are not taken as input"]


@pytest.mark.parametrize("given", ["", "_big"])
def test_the_input_folder_as_output(tmp_path: Path, restorer: Restorer, given: str) -> None:
    used = given or "_x2"
    for name in ("a.png", "a.jpg", "sub/b.png"):
        picture(tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    for _ in range(2):
        plan = plan_jobs(tmp_path, tmp_path / "sub" / "..", suffix=given, same_folder_suffix="_x2")
        assert restore_files(restorer, plan, quiet=True).complete
        assert len(plan.jobs) == 3, "results are no input the second time"
    assert files_in(tmp_path) == sorted([*before, f"a{used}.png", f"a_jpg{used}.png", f"sub/b{used}.png"])
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items()), "inputs are not touched"
    assert bool(given) != any("_x2" in note for note in plan.notes)


def test_a_file_named_outright_needs_no_image_suffix(tmp_path: Path, restorer: Restorer) -> None:
    source = picture(tmp_path / "a.png").rename(tmp_path / "upload")
    assert restore_files(restorer, plan_jobs(source, tmp_path / "out"), quiet=True).complete
    assert files_in(tmp_path / "out") == ["upload.png"]


def awkward(folder: Path) -> dict[str, str]:
    """Make files that cannot be restored; name -> what is said of each."""
    good = picture(folder / "good.png", size=(64, 48))
    (folder / "truncated.png").write_bytes(good.read_bytes()[:-3000])
    (folder / "text.png").write_text("This is no picture.")
    (folder / "empty.jpg").touch()
    (folder / "broken_link.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    return {
        "truncated.png": "is truncated",
        "text.png": "not an image",
        "empty.jpg": "is empty (0 bytes)",
        "broken_link.png": "is a broken link",
        "pipe.png": "not a regular file",
    }


def test_files_that_fail_are_named_and_the_others_done(
    tmp_path: Path, restorer: Restorer, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = awkward(tmp_path / "in")
    picture(tmp_path / "in" / "zz.png")
    report = restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"))
    assert files_in(tmp_path / "out") == ["good.png", "zz.png"]
    assert not report.complete
    assert {path.name for path, _ in report.failed} == set(faults)
    for path, reason in report.failed:
        assert faults[path.name] in reason and str(path) not in reason
    shown = capsys.readouterr().err
    assert all(f"failed: {tmp_path / 'in' / name}: " in shown for name in faults)
    assert "2 of 7 images restored" in report.summary() and "5 failed" in report.summary()


def test_whatever_a_network_raises_concerns_one_file(tmp_path: Path, restorer: Restorer) -> None:
    class Moody(type(restorer.net)):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] == 5:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: out of memory")
            if x.shape[-1] == 6:
                raise KeyError("a bug")
            if x.shape[-1] == 7:
                return super().forward(x) / 0
            return super().forward(x)

    for width in (4, 5, 6, 7):
        picture(tmp_path / "in" / f"{width}.png", size=(width, 4))
    report = restore_files(Restorer(Moody(), device="cpu"), plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True)
    assert [path.name for path in report.written] == ["4.png"]
    reasons = {path.stem: reason for path, reason in report.failed}
    assert reasons["5"].startswith("out of memory, even in the smallest tiles")
    assert reasons["6"].startswith("KeyError: ")
    assert reasons["7"].startswith("the network gave NaN or infinity in ")


def test_a_folder_that_cannot_be_listed_is_a_failure(
    tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "locked" / "b.png")
    listing = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, as whom tests may run, is never refused
    report = restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True)
    assert files_in(tmp_path / "out") == ["a.png"]
    assert report.failed == [(tmp_path / "in" / "locked", "the folder cannot be listed (Permission denied)")]


def test_nothing_is_written_outside_the_output_folder(tmp_path: Path, restorer: Restorer) -> None:
    picture(tmp_path / "in" / "sub" / "a.png")
    picture(tmp_path / "in" / "b.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    kept = picture(tmp_path / "elsewhere_b.png").read_bytes()
    (tmp_path / "out" / "b.png").symlink_to(tmp_path / "elsewhere_b.png")
    report = restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True)
    assert files_in(tmp_path / "elsewhere") == []
    assert "leads out of it" in report.failed[0][1] and len(report.failed) == 1
    assert (tmp_path / "elsewhere_b.png").read_bytes() == kept, "a link is replaced, not followed"
    assert not (tmp_path / "out" / "b.png").is_symlink()


def test_skip_existing(tmp_path: Path, restorer: Restorer) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    restore_files(restorer, Plan(plan.jobs[:1], plan.folder), quiet=True)
    report = restore_files(restorer, plan, skip_existing=True, quiet=True)
    assert [path.name for path in report.skipped] == ["a.png"] and [path.name for path in report.written] == ["b.png"]
    assert report.complete and "1 were there already" in report.summary()


@pytest.mark.parametrize("where", ["network", "rename"])
def test_ctrl_c_stops_tidily(tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    names = [f"{letter}.png" for letter in "abcdef"]
    for name in names:
        picture(tmp_path / "in" / name)
    rename = Folder.rename

    class Interrupted(type(restorer.net)):
        def forward(self, x: Tensor) -> Tensor:
            if where == "network" and self.calls >= 1:
                raise KeyboardInterrupt
            return super().forward(x)

    def interrupt(self: Folder, name: str, target: str, status: os.stat_result) -> None:
        if where == "rename" and target == "b.png":
            raise KeyboardInterrupt
        rename(self, name, target, status)

    monkeypatch.setattr(Folder, "rename", interrupt)  # at the worst moment: written, not yet renamed
    report = restore_files(
        Restorer(Interrupted(), device="cpu"), plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True
    )
    assert report.interrupted and not report.complete
    # what was under way may have been finished: by the other lane, or by the writers
    written = set(files_in(tmp_path / "out"))
    assert written <= set(names) - {"b.png"} if where == "rename" else len(written) <= 2
    assert {path.name for path in report.written} == set(files_in(tmp_path / "out"))


def test_ctrl_c_reaches_networks_in_their_midst(tmp_path: Path, set_threads: Callable[[int], None]) -> None:
    class Slow(nn.Module):
        """Deep, and slow enough for an interrupt to come long before its end."""

        upscale, in_chans = 1, 3

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Identity() for _ in range(2000))
            self.visited, self.finished, self.lock = 0, 0, threading.Lock()

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
                with self.lock:
                    self.visited += 1
                    if self.visited == 5:
                        _thread.interrupt_main()
                time.sleep(0.01)
            self.finished += 1
            return x

    for letter in "abcd":
        picture(tmp_path / "in" / f"{letter}.png")
    net = Slow()
    set_threads(2)
    report = restore_files(Restorer(net, device="cpu"), plan_jobs(tmp_path / "in", tmp_path / "out"), quiet=True)
    assert report.interrupted and not report.written and not report.failed
    assert net.visited >= 5 and net.finished == 0, "two lanes left it on the way, and no other image came in"
    assert files_in(tmp_path / "out") == []


def test_a_manifest_that_cannot_be_written_ends_the_run(
    tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        picture(tmp_path / "in" / f"{number}.png")

    def broken(descriptor: int, line: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(jsonl, "_append", broken)
    monkeypatch.setattr(pipeline_module, "MEMORY", 1)  # one image at a time: what is not given back is missed at once
    plan, ledger = plan_jobs(tmp_path / "in", tmp_path / "out"), Ledger(tmp_path / "out", {})
    report = restore_files(restorer, plan, ledger=ledger, quiet=True)
    reason = f"{tmp_path / 'out' / 'manifest.jsonl'} cannot be written: Input/output error"
    assert report.stopped == reason and not report.written and not report.complete and len(report.left) == 12
    assert f"12 are left, as {reason}; the same command goes on" in report.summary()
    assert restorer.net.calls < 12, "nobody computes for hours what nobody can record"
    assert not list((tmp_path / "out").rglob("*.claim")), "all claims are released"


def test_another_run_of_the_same_network_is_not_stopped_with_the_first(tmp_path: Path) -> None:
    class Meeting(nn.Module):
        """Interrupts the main thread once both runs are in it."""

        upscale, in_chans = 1, 3

        def __init__(self) -> None:
            super().__init__()
            self.both, self.stopped = threading.Barrier(2), threading.Event()
            self.block = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            if not self.stopped.is_set():
                if self.both.wait(30) == 0:
                    _thread.interrupt_main()
                self.stopped.wait(30)
            return self.block(x)

    for letter in "ab":
        picture(tmp_path / letter / f"{letter}.png")
    restorer, others = Restorer(Meeting(), device="cpu", batch=2), []

    def work() -> None:
        others.append(restore_files(restorer, plan_jobs(tmp_path / "b", tmp_path / "out b"), quiet=True))

    stop = Lanes.stop

    def stop_and_tell(self: Lanes) -> None:
        stop(self)
        restorer.net.stopped.set()

    other = threading.Thread(target=work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lanes, "stop", stop_and_tell)
        other.start()
        report = restore_files(restorer, plan_jobs(tmp_path / "a", tmp_path / "out a"), quiet=True)
        other.join()
    assert report.interrupted and not report.written
    assert others[0].complete and [path.name for path in others[0].written] == ["b.png"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a thread")
def test_a_second_ctrl_c_leaves_claims_to_those_who_still_write(
    tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in" / "a.png")
    out, go_on = tmp_path / "out", threading.Event()
    close, stop = PngWriter.close, pipeline_module._Batch._stop

    def ctrl_c() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def slowly(self: PngWriter) -> None:
        ctrl_c()
        assert go_on.wait(30)
        close(self)

    def stop_and_again(self: pipeline_module._Batch, *threads: Any) -> None:
        stop(self, *threads)
        threading.Timer(0.1, ctrl_c).start()

    monkeypatch.setattr(PngWriter, "close", slowly)
    monkeypatch.setattr(pipeline_module._Batch, "_stop", stop_and_again)
    report = restore_files(restorer, plan_jobs(tmp_path / "in", out), ledger=Ledger(out, {}), quiet=True)
    assert report.interrupted and not report.written
    assert len(list(out.rglob("*.claim"))) == 1, "its writer is at work, so nobody else may be"
    go_on.set()
    deadline = time.monotonic() + 30
    while list(out.rglob("*.claim")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(out.rglob("*.claim")) and read_image(out / "a.png").pixels.shape == (8, 12, 3)


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mambair.images.stream_writers import PngWriter
from mambair.folders.pipeline import restore_files
from mambair.folders.plan import plan_jobs
from mambair.inference.restorer import Restorer
from mambair.system import jsonl
from mambair.system.path_gate import Folder
from torch import nn

class Same(nn.Module):
    upscale, in_chans = 1, 3
    def forward(self, x):
        return x

def slowly(self):
    self._stream.flush()
    print("half", flush=True)
    time.sleep(2)
    close(self)
close, PngWriter.close = PngWriter.close, slowly
restore_files(Restorer(Same(), device="cpu"), plan_jobs(Path(sys.argv[2]), Path(sys.argv[3])), quiet=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_killed_process_leaves_no_half_result(tmp_path: Path, repository: Path, how: signal.Signals) -> None:
    picture(tmp_path / "in" / "a.png")
    command = [sys.executable, "-c", KILLED, str(repository), str(tmp_path / "in"), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        process.send_signal(how)
        process.wait(timeout=30)
    left = files_in(tmp_path / "out")
    if how == signal.SIGINT:
        assert left == ["a.png"], "what is being written is written to its end"
        return
    # after SIGKILL nobody can tidy up; what is left is hidden, and no later run takes it for an image
    assert all(name.startswith(".") for name in left) and len(left) == 1
    shutil.copytree(tmp_path / "out", tmp_path / "in" / "again")
    assert len(plan_jobs(tmp_path / "in", tmp_path / "fresh").jobs) == 1


def test_the_bar_moves_within_an_image(
    tmp_path: Path, restorer: Restorer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in" / "a.png", size=(8, 40))
    positions: list[float] = []
    moved = ProgressBar.tile

    def watched(bar: ProgressBar, job: Job, done: int, total: int, megapixels: tuple[float, float]) -> None:
        moved(bar, job, done, total, megapixels)
        assert megapixels == (0.00032, 0.00128)
        positions.append(bar._bar.n)

    monkeypatch.setattr(ProgressBar, "tile", watched)
    restorer = Restorer(restorer.net, tile=16, overlap=4, batch=1, device="cpu")
    restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"))
    assert positions == pytest.approx([1 / 3, 2 / 3, 0.99]), "all of it only once the file is there"
    assert "1.0/1 images" in capsys.readouterr().err


def test_names_with_broken_bytes_and_line_breaks(tmp_path: Path, restorer: Restorer) -> None:
    source = picture(tmp_path / "in" / "a.png").read_bytes()
    try:
        (tmp_path / "in" / "line\nbreak.png").write_bytes(source)
        (tmp_path / "in" / os.fsdecode(b"bad\xff.png")).write_bytes(source)
    except OSError:
        pytest.skip("this file system refuses such names")
    report = restore_files(restorer, plan_jobs(tmp_path / "in", tmp_path / "out"))
    assert report.complete and len(files_in(tmp_path / "out")) == 3


def test_real_images_of_all_kinds(tmp_path: Path, development_data: Path, restorer: Restorer) -> None:
    test_sets = development_data / "data" / "test"
    for name in ("Set5/LRbicx4/bird.png", "Set12/01.png", "RealSRSet/dog.png"):
        found = test_sets / name
        if found.exists():
            (tmp_path / "in").mkdir(exist_ok=True)
            shutil.copy(found, tmp_path / "in" / found.name)
    torch.manual_seed(0)
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    assert len(plan.jobs) >= 2 and restore_files(restorer, plan, quiet=True).complete
    for job in plan.jobs:
        source, target = read_image(job.source), read_image(job.target)
        # local and exact, so tiles must leave no trace
        assert np.array_equal(target.pixels, source.pixels.repeat(2, 0).repeat(2, 1))
