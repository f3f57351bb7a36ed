"""What is done is not done again, what has changed is, and who shares the work is not in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mambair.folders import file_locks, pipeline
from mambair.folders.file_locks import try_claim
from mambair.folders.manifest import Manifest
from mambair.folders.pipeline import Report, restore_files
from mambair.folders.plan import Job, plan_jobs
from mambair.folders.resume import Ledger, State
from mambair.inference.restorer import Restorer
from mambair.system.errors import RequestError
from mambair.system.path_gate import UnsafePathError

SETTINGS = {"weights": "abc", "tile_asked": 32}


def run(restorer: Restorer, photos: Path, settings: dict[str, Any] = SETTINGS, **options: Any) -> Report:
    """Restore ``photos`` into the folder ``out`` beside it."""
    out = photos.parent / "out"
    asked = {name: options.pop(name, False) for name in ("overwrite", "details")}
    ledger = Ledger(out, settings, **asked)
    return restore_files(restorer, plan_jobs(photos, out), ledger=ledger, quiet=True, **options)


def records(photos: Path) -> list[dict[str, Any]]:
    """In the order of their names: several threads write."""
    lines = (photos.parent / "out" / "manifest.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["output"])


def test_a_second_run_does_nothing(photos: Path, restorer: Restorer) -> None:
    first = run(restorer, photos)
    assert first.complete and len(first.written) == 5
    stamps = {path: path.stat().st_mtime_ns for path in (photos.parent / "out").iterdir()}
    second = run(restorer, photos)
    assert second.complete and not second.written and len(second.skipped) == 5
    assert {path: path.stat().st_mtime_ns for path in (photos.parent / "out").iterdir()} == stamps
    assert len(records(photos)) == 5
    assert sorted(path.name for path in (photos.parent / "out").iterdir()) == [
        *(f"{letter}.png" for letter in "abcde"),
        "manifest.jsonl",
    ], "claims are tidied up"


def test_a_record_says_how_it_was_made(photos: Path, restorer: Restorer) -> None:
    run(restorer, photos)
    record = records(photos)[0]
    expected = {"input": "a.png", "output": "a.png", "status": "done", "size": [6, 4]}
    expected |= {"output_size": [12, 8], "tile": 32, "overlap": 8, "tiles": 1, "tiles_redone_in_float32": 0, **SETTINGS}
    assert {key: record[key] for key in expected} == expected
    assert record["seconds"] >= 0 and not {"host", "process", "path"} & record.keys()
    assert record["bytes"] == (photos.parent / "out" / "a.png").stat().st_size


CHANGES = {
    "input": lambda folder: Image.new("RGB", (3, 3)).save(folder / "in" / "b.png"),
    "result-removed": lambda folder: (folder / "out" / "b.png").unlink(),
    "result-cut": lambda folder: os.truncate(folder / "out" / "b.png", 20),
    "record-lost": lambda folder: (folder / "out" / "manifest.jsonl").write_text(
        "".join(
            line
            for line in (folder / "out" / "manifest.jsonl").read_text().splitlines(keepends=True)
            if '"b.png"' not in line
        )
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_done_again(
    photos: Path, restorer: Restorer, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(restorer, photos)
    change(photos.parent)
    capsys.readouterr()
    report = run(restorer, photos)
    assert [path.name for path in report.written] == ["b.png"] and len(report.skipped) == 4
    assert ("of which the manifest says nothing" in capsys.readouterr().err) == (change is CHANGES["record-lost"])


def test_other_settings_do_all_again(photos: Path, restorer: Restorer) -> None:
    run(restorer, photos)
    assert len(run(restorer, photos, {**SETTINGS, "weights": "other"}).written) == 5
    assert len(run(restorer, photos, {**SETTINGS, "weights": "other"}).skipped) == 5


def test_overwriting_and_skipping_whatever_is_there(photos: Path, restorer: Restorer) -> None:
    run(restorer, photos)
    assert len(run(restorer, photos, overwrite=True).written) == 5
    assert len(run(restorer, photos, {"weights": "other"}, skip_existing=True).skipped) == 5


def same_stamp(path: Path, data: bytes) -> None:
    """Give a file another content, and the time of change it had."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shifted(data: bytes) -> bytes:
    """Another picture of the same number of bytes: uncompressed, so that only the last byte of the pixels changes."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of files of the same names, sizes and times of change; those of ``same`` have equal contents."""
    folders = tmp_path / "in", tmp_path / "other"
    for name in ("same.ppm", "differs.ppm"):
        for folder in folders:
            folder.mkdir(exist_ok=True)
            data = b"P6\n6 4\n255\n" + bytes(range(72))
            (folder / name).write_bytes(shifted(data) if folder.name == "other" and name == "differs.ppm" else data)
            os.utime(folder / name, ns=(10**18, 10**18))
    return folders


def restore(restorer: Restorer, source: Path, out: Path) -> Report:
    return restore_files(restorer, plan_jobs(source, out), ledger=Ledger(out, SETTINGS), quiet=True)


def test_another_folder_of_the_same_names_sizes_and_times_is_not_done(
    two_folders: tuple[Path, Path], restorer: Restorer, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = two_folders
    out = ours.parent / "out"
    assert len(restore(restorer, ours, out).written) == 2
    assert capsys.readouterr().err == ""
    report = restore(restorer, theirs, out)
    assert [path.name for path in report.written] == ["differs.png"] and report.skipped == [theirs / "same.ppm"]
    pixels = np.array(Image.open(theirs / "differs.ppm")).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(np.array(Image.open(out / "differs.png")), pixels)
    line = f"{theirs / 'differs.ppm'}: replaces {out / 'differs.png'}, which came from another file\n"
    assert capsys.readouterr().err == line
    record = Manifest(out / "manifest.jsonl").last("differs.png")
    assert record is not None and record["input"] == "differs.ppm"
    assert record["source"]["sha256"] == hashlib.sha256((theirs / "differs.ppm").read_bytes()).hexdigest()


TOUCHES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "time": (lambda path: os.utime(path, ns=(1, 1)), True),
    "copied": (lambda path: (path.rename(path.with_name("x")), shutil.copy(path.with_name("x"), path)), True),
    "mode": (lambda path: path.chmod(0o640), True),
    "content": (lambda path: path.write_bytes(shifted(path.read_bytes())), False),
    "content, not the time": (lambda path: same_stamp(path, shifted(path.read_bytes())), False),
    "replaced, not the time": (
        lambda path: (
            shutil.copy2(path, path.with_name("x")),
            same_stamp(path.with_name("x"), shifted(path.read_bytes())),
            path.with_name("x").replace(path),
        ),
        False,
    ),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), False),
}


@pytest.mark.parametrize(("touch", "is_done"), TOUCHES.values(), ids=TOUCHES)
def test_equal_content_is_done(
    touch: Callable[[Path], object], is_done: bool, two_folders: tuple[Path, Path], restorer: Restorer
) -> None:
    source, out = two_folders[0], two_folders[0].parent / "out"
    restore(restorer, source, out)
    time.sleep(0.02)  # the clock of a file system ticks, which the time of the last change shows
    touch(source / "differs.ppm")
    report = restore(restorer, source, out)
    assert [path.name for path in report.skipped] == (["differs.ppm"] if is_done else []) + ["same.ppm"]
    assert len(report.written) == (0 if is_done else 1)


def test_what_nobody_touched_is_not_read(photos: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    run(restorer, photos)

    def refuse(path: Path, **options: Any) -> Any:
        pytest.fail(f"reads {path}")

    monkeypatch.setattr(pipeline, "read_encoded", refuse)
    assert len(run(restorer, photos).skipped) == 5


@pytest.mark.parametrize(
    ("stamp", "skipped"),
    [
        (("bytes", "modified_ns"), 2),
        (("bytes",), 0),
        ((), 0),
    ],
    ids=["of old", "incomplete", "none"],
)
def test_manifests_without_digests(
    stamp: tuple[str, ...], skipped: int, two_folders: tuple[Path, Path], restorer: Restorer
) -> None:
    source, out = two_folders[0], two_folders[0].parent / "out"
    restore(restorer, source, out)
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    for record in lines:
        record["source"] = {key: record["source"][key] for key in stamp}
    (out / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    assert len(restore(restorer, source, out).skipped) == skipped


def test_a_file_that_changes_while_it_is_restored_is_done_again(
    two_folders: tuple[Path, Path], restorer: Restorer
) -> None:
    source, out = two_folders[0], two_folders[0].parent / "out"
    forward, turn = restorer.net.forward, threading.Lock()

    def change(x: Tensor) -> Tensor:
        with turn:  # two images are in work at once: one of them changes the files, in one step each
            if restorer.net.forward is change:
                for path in list(source.iterdir()):
                    (source.parent / "new").write_bytes(shifted(path.read_bytes()))
                    (source.parent / "new").replace(path)
                restorer.net.forward = forward
        return forward(x)

    restorer.net.forward = change
    assert len(restore(restorer, source, out).written) == 2
    again = restore(restorer, source, out)
    assert again.written, "at least the one that was read before"
    for path in source.iterdir():
        pixels = np.array(Image.open(path)).repeat(2, 0).repeat(2, 1)
        assert np.array_equal(np.array(Image.open(out / f"{path.stem}.png")), pixels)


def test_failures_are_recorded_and_tried_again(photos: Path, restorer: Restorer) -> None:
    whole = (photos / "c.png").read_bytes()
    (photos / "c.png").write_bytes(whole[:60])
    report = run(restorer, photos)
    assert not report.complete and len(report.written) == 4
    (record,) = [record for record in records(photos) if record["status"] == "failed"]
    assert record["output"] == "c.png" and "truncated" in record["error"] and "tile" not in record
    assert str(photos.parent) not in json.dumps(record) and not {"traceback", "host", "process", "path"} & record.keys()
    run(restorer, photos, details=True)
    record = [record for record in records(photos) if record["status"] == "failed"][-1]
    assert record["traceback"].startswith("Traceback") and "ImageFileError" in record["traceback"]
    assert (record["process"], record["path"]) == (os.getpid(), str(photos / "c.png")) and record["host"]
    (photos / "c.png").write_bytes(whole)
    report = run(restorer, photos)
    assert report.complete and [path.name for path in report.written] == ["c.png"]


class Hungry(nn.Module):
    """Repeats pixels; from its fourth call on, memory ends at tiles of 32."""

    in_chans, upscale = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 3 and x.shape[-1] * x.shape[-2] > 32 * 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_memory_that_runs_out_half_way_is_recorded(tmp_path: Path, ending: str) -> None:
    """Strips were written already: the file begins anew, in smaller tiles, and is whole."""
    (tmp_path / "in").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (300, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "in" / "a.png")
    restorer = Restorer(Hungry(), device="cpu", tile=64)
    out = tmp_path / "out"
    plan = plan_jobs(tmp_path / "in", out, format=ending)
    assert restore_files(restorer, plan, ledger=Ledger(out, {"tile_asked": 64}), quiet=True).complete
    (record,) = records(tmp_path / "in")
    assert (record["tile"], record["overlap"], record["tile_asked"]) == (32, 8, 64)
    assert np.array_equal(np.array(Image.open(out / f"a.{ending}")), values.repeat(2, 0).repeat(2, 1))
    assert sorted(path.name for path in out.iterdir()) == [f"a.{ending}", "manifest.jsonl"]


def test_what_others_do_meanwhile_is_waited_for(photos: Path, restorer: Restorer) -> None:
    out = photos.parent / "out"
    other = Ledger(out, SETTINGS)
    jobs = plan_jobs(photos, out).jobs
    held = [other.claim(job) for job in jobs[:3]]
    assert None not in held
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(run(restorer, photos)))
    thread.start()
    deadline = time.monotonic() + 20
    while not (out / "e.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert thread.is_alive() and not (out / "a.png").exists()
    # the first is done by the other, the second failed there, the third is given up
    Image.new("RGB", (12, 8)).save(out / "a.png")
    record = other.intend(held[0], jobs[0], (out / "a.png").stat(), other.stamp(jobs[0]), {})
    other.manifest.append(record)
    other.failed(jobs[1], "a reason of its own", "", other.stamp(jobs[1]))
    for claim in held:
        claim.release()
    thread.join(20)
    (report,) = reports
    assert [path.name for path in report.others] == ["a.png"]
    assert [(path.name, reason) for path, reason in report.failed] == [("b.png", "a reason of its own")]
    assert sorted(path.name for path in report.written) == ["c.png", "d.png", "e.png"]


@pytest.mark.skipif(os.name != "posix", reason="flock")
def test_a_claim_is_exclusive_also_between_threads(tmp_path: Path) -> None:
    claim = try_claim(tmp_path, "a")
    assert claim is not None and try_claim(tmp_path, "a") is None
    other = try_claim(tmp_path, "b")
    assert other is not None
    claim.release()
    again = try_claim(tmp_path, "a")
    assert again is not None
    again.release()
    other.release()
    assert list(tmp_path.rglob("*.claim")) == []


@pytest.mark.skipif(os.name != "posix", reason="flock")
def test_many_threads_and_one_claim(tmp_path: Path) -> None:
    holders, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal holders, most, done
        while True:
            claim = try_claim(tmp_path / "out", "a")
            if claim is not None:
                break
        with lock:
            holders += 1
            most = max(most, holders)
        time.sleep(0.001)
        with lock:
            holders, done = holders - 1, done + 1
        claim.release()
        file_locks.remove_folder(tmp_path / "out")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, done) == (1, 8)


@pytest.mark.parametrize("recorded", [False, True], ids=["not-recorded", "recorded"])
def test_a_death_between_renaming_and_recording(photos: Path, restorer: Restorer, recorded: bool) -> None:
    """The claim says what the dead one had finished."""
    out = photos.parent / "out"
    out.mkdir()
    dead, job = Ledger(out, SETTINGS), Job(photos / "a.png", out / "a.png")
    claim = dead.claim(job)
    assert claim is not None
    (out / ".temporary.png").write_bytes(b"the result")
    record = dead.intend(claim, job, (out / ".temporary.png").stat(), dead.stamp(job), {})
    (out / ".temporary.png").rename(out / "a.png")
    if recorded:
        dead.manifest.append(record)
    os.close(claim._descriptor)  # as the system does when a process dies
    report = run(restorer, photos)
    assert len(report.written) == 4 and (out / "a.png").read_bytes() == b"the result"
    assert sorted(record["output"] for record in records(photos)) == [f"{letter}.png" for letter in "abcde"]


def test_a_death_before_renaming_leaves_it_open(photos: Path) -> None:
    out = photos.parent / "out"
    out.mkdir()
    dead, job = Ledger(out, SETTINGS), Job(photos / "a.png", out / "a.png")
    claim = dead.claim(job)
    assert claim is not None
    (out / ".temporary.png").write_bytes(b"the result")
    dead.intend(claim, job, (out / ".temporary.png").stat(), dead.stamp(job), {})
    os.close(claim._descriptor)
    heir = Ledger(out, SETTINGS)
    claim = heir.claim(job)
    assert claim is not None and heir.state(job) is State.OPEN
    claim.release()


def test_half_a_line_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.append({"output": "a", "status": "done"})
    with path.open("ab") as stream:
        stream.write(b'{"output": "b", "sta')
    manifest.append({"output": "c", "status": "done"})
    manifest.refresh()
    assert [manifest.last(name) is not None for name in "abc"] == [True, False, True]
    assert Manifest(path).last("c") is not None and not Manifest(path).is_new("c") and manifest.is_new("c")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m")
    name = os.fsdecode(b"bad\xff\nname.png")
    manifest.append({"output": name, "status": "done"})
    again = Manifest(tmp_path / "m")
    assert again.last(name) == {"output": name, "status": "done"}


@pytest.mark.parametrize(
    ("content", "message"), [("my notes\n", "holds something else"), (None, "is a folder")], ids=["text", "folder"]
)
def test_a_file_that_is_no_manifest_is_left_alone(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "notes.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(RequestError, match=message):
        Manifest(path)
    assert content is None or path.read_text() == content


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("manifest.jsonl", r"manifest\.jsonl is a link, where a regular file is expected"),
        (".mambair", r"leads out of it: .*claims"),
        (".mambair/claims", r"leads out of it: .*claims"),
    ],
)
def test_links_that_lead_out_of_the_output_folder_are_refused(tmp_path: Path, link: str, message: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / link).parent.mkdir(parents=True)
    (tmp_path / "out" / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises((RequestError, UnsafePathError), match=message):
        Ledger(tmp_path / "out", SETTINGS)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_results_stay_exact_through_the_pipeline(photos: Path, restorer: Restorer) -> None:
    run(restorer, photos)
    for letter in "abcde":
        source, target = (np.array(Image.open(photos.parent / side / f"{letter}.png")) for side in ("in", "out"))
        assert np.array_equal(target, source.repeat(2, 0).repeat(2, 1))
