"""Output folders that a stranger has filled: each planted thing is an error or replaced; nothing outside is written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from mambair.folders.manifest import Manifest
from mambair.folders.pipeline import Report, restore_files
from mambair.folders.plan import plan_jobs
from mambair.folders.resume import Ledger
from mambair.images.files import natural_key
from mambair.inference.restorer import Restorer
from mambair.system.errors import RequestError
from mambair.system.path_gate import UnsafePathError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="links and pipes"),
    pytest.mark.usefixtures("any_system"),
]

TAG = hashlib.sha256(b"a.png").hexdigest()[:24]
DEEP = b'{"output": ' + b"[" * 100_000


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "private").write_bytes(b"mine\n")
    (tmp_path / "outside" / "claims").mkdir()
    return tmp_path / "outside"


def state(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def run(restorer: Restorer, photos: Path, out: Path) -> Report:
    return restore_files(restorer, plan_jobs(photos, out), ledger=Ledger(out, {"weights": "abc"}), quiet=True)


def written(data: bytes) -> Callable[[Path, Path], object]:
    return lambda path, outside: path.write_bytes(data)


# name: what is planted there; the error, or None where all five results are made, or the reason for a.png alone
PLANTED: dict[str, tuple[str, Callable[[Path, Path], object], type[Exception] | str | None]] = {
    "temporary file: link": (
        f".a.{TAG}.tmp.png",
        lambda path, outside: path.symlink_to(outside / "private"),
        None,
    ),
    "temporary file: dangling link": (
        f".a.{TAG}.tmp.png",
        lambda path, outside: path.symlink_to(outside / "new"),
        None,
    ),
    "temporary file: hard link": (
        f".a.{TAG}.tmp.png",
        lambda path, outside: path.hardlink_to(outside / "private"),
        None,
    ),
    "temporary file: pipe": (f".a.{TAG}.tmp.png", lambda path, outside: os.mkfifo(path), None),
    "temporary file: folder": (f".a.{TAG}.tmp.png", lambda path, outside: path.mkdir(), "tmp.png is a folder"),
    "result: link": ("a.png", lambda path, outside: path.symlink_to(outside / "private"), None),
    "result: hard link": ("a.png", lambda path, outside: path.hardlink_to(outside / "private"), None),
    "result: pipe": ("a.png", lambda path, outside: os.mkfifo(path), None),
    "result: folder": ("a.png", lambda path, outside: path.mkdir(), "a.png is a folder, where a file is to be"),
    "manifest: link": (
        "manifest.jsonl",
        lambda path, outside: path.symlink_to(outside / "private"),
        RequestError,
    ),
    "manifest: dangling link": (
        "manifest.jsonl",
        lambda path, outside: path.symlink_to(outside / "new"),
        RequestError,
    ),
    "manifest: hard link": (
        "manifest.jsonl",
        lambda path, outside: path.hardlink_to(outside / "private"),
        RequestError,
    ),
    "manifest: pipe": ("manifest.jsonl", lambda path, outside: os.mkfifo(path), RequestError),
    "manifest: folder": ("manifest.jsonl", lambda path, outside: path.mkdir(), RequestError),
    "manifest: device": ("manifest.jsonl", lambda path, outside: path.symlink_to("/dev/zero"), RequestError),
    "manifest: nested deeply": ("manifest.jsonl", written(b'{"output": "a.png", "status": "x"}\n' + DEEP), None),
    "manifest: only nested deeply": ("manifest.jsonl", written(DEEP + b"\n"), RequestError),
    "manifest: strange records": (
        "manifest.jsonl",
        written(
            b'{"output": "a.png", "status": "done", "settings": 1e999}\n'
            b'{"output": "a.png", "status": ["done"], "source": 5, "settings": {}}\n'
            b'{"output": ["a.png"], "status": "done"}\n{"output": "a.png", "status": "done", "bytes": "9"}\n'
        ),
        None,
    ),
    "claims: link out": (".mambair", lambda path, outside: path.symlink_to(outside), UnsafePathError),
    "claims: dangling link out": (
        ".mambair",
        lambda path, outside: path.symlink_to(outside / "new"),
        UnsafePathError,
    ),
    "claims: to nowhere": (
        ".mambair/claims",
        lambda path, outside: path.symlink_to(outside / "new"),
        UnsafePathError,
    ),
    "claims: to nowhere within": (".mambair/claims", lambda path, outside: path.symlink_to("nowhere"), None),
    "claims: loop": (".mambair/claims", lambda path, outside: path.symlink_to("claims"), "claims is a link"),
    "claims: file": (".mambair", lambda path, outside: path.touch(), ".mambair is a regular file"),
    "claim: link": (
        f".mambair/claims/{TAG}.claim",
        lambda path, outside: path.symlink_to(outside / "private"),
        "claim is a link",
    ),
    "claim: hard link": (
        f".mambair/claims/{TAG}.claim",
        lambda path, outside: path.hardlink_to(outside / "private"),
        "claim is a hard link",
    ),
    "claim: pipe": (
        f".mambair/claims/{TAG}.claim",
        lambda path, outside: os.mkfifo(path),
        "claim is a named pipe",
    ),
    "claim: folder": (f".mambair/claims/{TAG}.claim", lambda path, outside: path.mkdir(), "claim is a folder"),
    "claim: nested deeply": (f".mambair/claims/{TAG}.claim", written(DEEP), None),
    "claim: no record": (f".mambair/claims/{TAG}.claim", written(b'{"file": null, "record": 5}'), None),
    "claim: of another": (
        f".mambair/claims/{TAG}.claim",
        written(b'{"file": [], "record": {"output": "/etc/passwd", "status": "done"}}'),
        None,
    ),
}


@pytest.mark.parametrize(("name", "plant", "expected"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted(
    name: str,
    plant: Callable[[Path, Path], object],
    expected: type[Exception] | str | None,
    photos: Path,
    outside: Path,
    restorer: Restorer,
) -> None:
    out = photos.parent / "out"
    (out / name).parent.mkdir(parents=True)
    plant(out / name, outside)
    before, sources = state(outside), state(photos)
    if isinstance(expected, type):
        with pytest.raises(expected, match=r"remove it|holds something else"):
            run(restorer, photos, out)
        assert not list(out.rglob("*.png"))
    elif expected is not None:
        report = run(restorer, photos, out)
        reasons = dict(report.failed)
        assert photos / "a.png" in reasons and all(expected in reason for reason in reasons.values()), reasons
        is_alone = name != ".mambair" and not name.endswith("claims")
        assert len(report.written) == (4 if is_alone else 0)
    else:
        report = run(restorer, photos, out)
        assert report.complete and len(report.written) == 5, report
        for letter in "abcde":
            source, target = (np.array(Image.open(folder / f"{letter}.png")) for folder in (photos, out))
            assert np.array_equal(target, source.repeat(2, 0).repeat(2, 1))
        assert not (out / f".a.{TAG}.tmp.png").exists()
    assert state(outside) == before and state(photos) == sources


def test_a_folder_that_becomes_a_link_during_the_run(photos: Path, outside: Path, restorer: Restorer) -> None:
    (photos / "sub").mkdir()
    (photos / "e.png").rename(photos / "sub" / "e.png")
    out = photos.parent / "out"
    (out / "sub").mkdir(parents=True)
    before, net = state(outside), restorer.net
    forward = net.forward

    first = threading.Lock()

    def plant(x):
        if first.acquire(blocking=False):  # images are restored side by side
            (out / "sub").rmdir()
            (out / "sub").symlink_to(outside)
        return forward(x)

    net.forward = plant  # type: ignore[method-assign]
    report = run(restorer, photos, out)
    assert [path.name for path, reason in report.failed if "leads out of it" in reason] == ["e.png"]
    assert len(report.written) == 4 and state(outside) == before


@pytest.mark.parametrize("names", [["1²2.png", "①/a.png", "٣.png", "²", "9" * 150 + ".png"]], ids=["names"])
def test_digits_of_all_alphabets(names: list[str], tmp_path: Path, restorer: Restorer) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3)).save(tmp_path / "in" / name, "PNG")
    report = run(restorer, tmp_path / "in", tmp_path / "out")
    assert report.complete and len(report.written) == len(names) - 1, "one has no ending"


def test_the_natural_order() -> None:
    names = ["10", "2", "1²2", "a10", "a9", "007", "7", "0", "00", "9" * 5000, "8" * 5000, "①", ""]
    ordered = ["", "0", "00", "1²2", "2", "007", "7", "10", "8" * 5000, "9" * 5000, "a9", "a10", "①"]
    assert sorted(names, key=natural_key) == ordered
    assert len({tuple(natural_key(name)) for name in names}) == len(names)


def test_an_error_of_others_is_shown_without_its_control_characters(
    photos: Path, restorer: Restorer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    ours, theirs = Ledger(out, {"weights": "abc"}), Manifest(out / "manifest.jsonl")
    job = plan_jobs(photos, out).jobs[0]
    record = {"input": job.name, "output": "a.png", "status": "failed", "settings": ours.settings}
    theirs.append({**record, "error": "\x1b]0;gotcha\x07", "source": ours.stamp(job)})
    report = restore_files(restorer, plan_jobs(photos, out), ledger=ours, quiet=True)
    assert len(report.failed) == 1
    shown = capsys.readouterr().err
    assert r"\x1b]0;gotcha\x07" in shown and "\x1b" not in shown
    assert json.loads((out / "manifest.jsonl").read_text().splitlines()[0])["error"] == "\x1b]0;gotcha\x07"
