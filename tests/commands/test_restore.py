"""``mambair restore``: what is said before anything is loaded, what is written, and on which streams."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.commands import restore
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint


@pytest.mark.parametrize("task", ["jpeg", "real_denoise"])
def test_a_task_without_packaged_weights_says_so(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        restore.main(["-i", "x", "-o", "y"], task=task)
    assert stopped.value.code == 2
    expected = f"no weights are packaged for {task} (there are: denoise 25, photo 2, sr 4); name a file: --weights FILE"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "denoise", "-s", "2"], "--scale says nothing about the task denoise"),
        (["--sigma", "25"], "--sigma says nothing about the task sr"),
        (["--task", "denois"], "got 'denois'; did you mean 'denoise'?"),
        (["--task", "SR"], "got 'SR'; did you mean 'sr'?"),
        (["--task", "nothing"], "--task: must be one of sr, denoise, jpeg, real_denoise, photo, auto, got 'nothing'"),
    ],
    ids=["scale", "sigma", "mistyped", "capitals", "task"],
)
def test_arguments_that_do_not_belong_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        restore.main(["-i", "x", "-o", "y", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of a very small MambaIR that enlarges by two."""
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": 2}
    kwargs["upsampler"] = "pixelshuffledirect"
    net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.safetensors"
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)})
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with three pictures in ``in``, and a file of weights that is none."""
    (tmp_path / "in").mkdir()
    for number, letter in enumerate("abc"):
        values = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "in" / f"{letter}.png")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


EARLY: dict[str, tuple[list[str], str]] = {
    "no input": (["-i", "nothing"], "input: there is no file or folder nothing"),
    "empty input": (["-i", ""], "-i/--input: must not be empty (. is the current folder)"),
    "empty output": (["-o", ""], "-o/--output: must not be empty (. is the current folder)"),
    "empty manifest": (["--manifest", ""], "--manifest: must not be empty"),
    "pattern": (["-i", "in/*.png"], "it looks like a pattern that the shell did not replace"),
    "address": (["-i", "s3://bucket/in"], "is an address (s3:), which is not read"),
    "unknown ending": (["-i", "in/a.png", "-o", "big.pgn"], "looks like a file of an unknown format"),
    "format of a file": (["-i", "in/a.png", "-o", "big.png", "--format", "png"], "format: 'png' does not apply"),
    "suffix of a file": (["-i", "in/a.png", "-o", "big.png", "--suffix", "_x"], "suffix: '_x' does not apply"),
    "format": (["--format", "jpge"], "did you mean 'jpeg'?"),
    "quality of png": (["--quality", "90"], "quality: png has none"),
    "quality out of range": (["--quality", "0", "--format", "jpg"], "quality: must be from 1 to 100, got 0"),
    "quality of no input": (["--quality", "90", "--format", "same"], "quality: png has none, only jpg, jpeg, webp"),
    "a standard stream": (["-i", "-"], "argument -i/--input: - would be a standard stream, which is not used"),
    "filter of a file": (
        ["-i", "in/a.png", "--include", "*"],
        "choose files of a folder, and the input is one file",
    ),
    "overlap without tiles": (["--tile", "0", "--overlap", "9"], "--overlap is of tiles and --tile 0 makes none"),
    "details of no manifest": (
        ["-i", "in/a.png", "-o", "big.png", "--manifest-details"],
        "manifest-details: no manifest is written for a single result; --manifest names one",
    ),
    "max-pixels": (["--max-pixels", "many"], "must be a number of pixels such as 200M or 1e9, or 0, got 'many'"),
    "output below a file": (
        ["-o", "in/a.png/out"],
        "written in in/a.png/out: in/a.png is not a folder",
    ),
    "output of a broken link": (["-o", "broken"], "output: nothing can be written in broken: broken is a broken link"),
    "output in /proc": (["-o", "/proc/mambair"], "output: nothing can be written in /proc/mambair: No such file or"),
    "manifest below a file": (["--manifest", "notes/log"], "manifest: nothing can be written in notes: notes is not a"),
    "manifest in /proc": (["--manifest", "/proc/a/log"], "manifest: nothing can be written in /proc/a: No such file"),
    "manifest is a folder": (["--manifest", "in"], "manifest: in is a folder, where a regular file is expected"),
    "manifest is something else": (["--manifest", "notes"], "manifest: notes holds something else"),
    "manifest of a pipe": (["--manifest", "pipe"], "manifest: pipe is a named pipe, where a regular file is expected"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc, links, pipes")
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(("arguments", "message"), EARLY.values(), ids=EARLY)
def test_what_is_said_before_weights_are_read(
    arguments: list[str], message: str, dry: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken").symlink_to("nowhere")
    (here / "notes").write_text("my notes\n")
    os.mkfifo(here / "pipe")
    before = names(here)
    with pytest.raises(SystemExit) as stopped:
        restore.main(["-i", "in", "-o", "out", "--weights", "broken.safetensors", *arguments, *dry], task="sr")
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and message in shown, shown
    assert names(here) == before and not (here / "out").exists()


def test_a_name_that_begins_with_a_dash(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in" / "a.png").rename(here / "-a.png")
    with pytest.raises(SystemExit):
        restore.main(["-a.png"])
    expected = "unrecognized arguments: -a.png; a file whose name begins with a dash is written ./-a.png\n"
    usage = "usage: mambair restore ... ('mambair restore --help' shows all arguments)\n"
    assert capsys.readouterr().err == f"{usage}mambair restore: error: {expected}"
    assert restore.main(["./-a.png", "--dry-run"]) == restore.main(["--dry-run", "--", "-a.png"]) == 0


def test_weights_that_cannot_be_read_leave_no_folder(here: Path) -> None:
    with pytest.raises(SystemExit):
        restore.main(["-i", "in", "-o", "out/deep", "--weights", "broken.safetensors"])
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "big.png"], ["big.png"]),
        (["-o", "sub/big.png"], ["sub/big.png"]),
        (["-o", "big.png", "--manifest", "log.jsonl"], ["big.png", "log.jsonl"]),
        (["-o", "out"], ["out/a.png", "out/manifest.jsonl"]),
        (["-o", "in"], ["in/a_x2.png", "in/manifest.jsonl"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_written_for_one_image(arguments: list[str], expected: list[str], here: Path, weights: Path) -> None:
    before = names(here)
    command = ["-i", "in/a.png", "--weights", str(weights), *arguments]
    assert restore.main([*command, "--dry-run"]) == 0
    assert names(here) == before
    assert restore.main(command) == 0
    assert sorted({*names(here)} - {*before}) == expected
    assert not list(here.rglob(".mambair"))


def test_a_dry_run_says_what_the_run_would(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-i", "in", "-o", "out", "--weights", str(weights)]
    assert restore.main(command) == 0
    os.utime(here / "in" / "a.png", ns=(1, 1))
    Image.new("RGB", (9, 8)).save(here / "in" / "b.png")
    capsys.readouterr()
    assert restore.main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said == "in/a.png: skip out/a.png\nin/b.png: write out/b.png\nin/c.png: skip out/c.png\n"
    assert restore.main(command) == 0
    assert "1 of 3 images restored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "code"), [("71", 1), ("72", 0), ("7.2e1", 0), ("0", 0), ("1k", 0), ("0.072K", 0), ("200M", 0), ("1e9", 0)]
)
def test_max_pixels(given: str, code: int, here: Path, weights: Path) -> None:
    command = ["-i", "in", "-o", "out", "--weights", str(weights), "--max-pixels", given]
    assert restore.main(command) == code


@pytest.mark.parametrize("given", ["-1", "1.5", "nan", "inf", "M", "1T", ""])
def test_max_pixels_that_are_none(given: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        restore.main(["-i", "in", "-o", "out", f"--max-pixels={given}"])
    assert f"must be a number of pixels such as 200M or 1e9, or 0, got {given!r}" in capsys.readouterr().err


class Bare:
    """A logger's stream."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


@pytest.mark.parametrize("make", [lambda: None, Bare], ids=["none", "bare"])
def test_missing_and_bare_streams(
    make: Callable[[], Any], here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "in" / "d.png").write_bytes(b"no image")
    streams = make(), make()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert restore.main(["-i", "in", "-o", "out", "--weights", str(weights)]) == 1
    assert names(here / "out") == ["a.png", "b.png", "c.png", "manifest.jsonl"]
    if isinstance(streams[0], Bare):
        assert "3 of 4 images restored" in streams[0].text
        assert "failed: in/d.png: " in streams[1].text and "4.0/4 images" in streams[1].text


def start(repository: Path, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    program = "import sys, mambair.cli; sys.exit(mambair.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", program, "restore", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, **options)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_goes_ends_quietly(here: Path, weights: Path, repository: Path) -> None:
    for number in range(3000):  # more than a pipe holds
        (here / "in" / f"{number}.png").touch()
    arguments = ["-i", "in", "-o", "out", "--weights", str(weights), "--dry-run"]
    with start(repository, arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "in/0.png: write out/0.png\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="descriptors")
def test_descriptors_that_were_closed_receive_no_result(here: Path, weights: Path, repository: Path) -> None:
    (here / "in" / "d.png").write_bytes(b"no image")
    arguments = ["-i", "in", "-o", "out", "--weights", str(weights)]
    with start(repository, arguments, preexec_fn=lambda: os.closerange(0, 3)) as process:
        pass
    assert process.returncode == 1
    assert names(here / "out") == ["a.png", "b.png", "c.png", "manifest.jsonl"]
    assert all(json.loads(line) for line in (here / "out" / "manifest.jsonl").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(here: Path, weights: Path, repository: Path) -> None:
    """As nohup does; the same signal ends the run otherwise, see test_signals.py."""
    for number in range(40):
        (here / "in" / f"{number}.png").write_bytes((here / "in" / "a.png").read_bytes())
    arguments = ["-i", "in", "-o", "out", "--weights", str(weights)]

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with start(repository, arguments, preexec_fn=nohup, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while not (here / "out" / "manifest.jsonl").exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "43 of 43 images restored" in said


def test_names_with_escapes_are_shown_escaped(here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "in" / "\x1b]0;x\x07.png").write_bytes(b"no image")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert restore.main(["-i", "in", "-o", "out", "--weights", str(weights)]) == 1
    assert r"failed: in/\x1b]0;x\x07.png: " in stream.getvalue() and "\x1b" not in stream.getvalue()
