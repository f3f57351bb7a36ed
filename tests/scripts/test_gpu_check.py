"""scripts/gpu_check.sh and gpu_crops.py, rehearsed without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(repository / "scripts" / "gpu_check.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an output folder; run it with --help"),
        (["a", "b"], "one output folder, got a and b"),
        (["out", "--secnds", "5"], "unknown option --secnds; run it with --help"),
        (["out", "--seconds"], "--seconds: expected a value"),
        (["out", "--seconds", "soon"], "--seconds soon: expected whole seconds"),
        (["out", "--crops", "absent"], "--crops absent: has no folder train; make it with scripts/gpu_crops.py"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, repository: Path, tmp_path: Path) -> None:
    done = run(repository, *(str(tmp_path / each) if each == "out" else each for each in arguments))
    assert (done.returncode, done.stderr) == (2, f"gpu_check.sh: {message}\n")
    assert not list(tmp_path.iterdir())


def test_steps_without_time_are_named(repository: Path, tmp_path: Path) -> None:
    done = run(repository, str(tmp_path / "out"), "--seconds", "0", "--rehearse")
    assert done.returncode == 1
    summary = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    steps = ("machine", "parity", "tests", "scan", "networks")
    assert summary[-5:] == [f"{name}: not run, no time left" for name in steps]


def test_parity_rehearsed(repository: Path, tmp_path: Path) -> None:
    script, output = repository / "benchmarks" / "gpu_parity.py", tmp_path / "parity.jsonl"
    command = [sys.executable, str(script), "--rehearse", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    from mambair.ops import native

    lines = output.read_text().splitlines()
    assert len(lines) == 15
    if native.load():  # without a compiler the backend is missing, and each line says so
        assert (done.returncode, done.stderr) == (0, "")
    assert sum('"passed": true' in line for line in lines) == (15 if native.load() else 0)


def test_crops(repository: Path, tmp_path: Path, load_script) -> None:
    crops = load_script("gpu_crops")
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    noise[:32, :32] = 7  # flat: no detail
    for index in range(4):
        Image.fromarray(noise).save(tmp_path / "images" / f"{index}.png")
    count, size = crops.cut(tmp_path / "images", tmp_path / "crops", size=32, budget=10**6, validation=2)
    written = sorted(path.name for path in (tmp_path / "crops" / "train").iterdir())
    assert written == [f"{image:04d}_{rank}.webp" for image in range(2) for rank in range(6)] and count == 12
    assert size == sum(path.stat().st_size for path in (tmp_path / "crops" / "train").iterdir())
    assert len(list((tmp_path / "crops" / "val").iterdir())) == 2
    flat = np.asarray(Image.open(tmp_path / "crops" / "train" / "0000_5.webp"))
    assert np.array_equal(flat, noise[:32, :32])
    few, size = crops.cut(tmp_path / "images", tmp_path / "few", size=32, budget=10_000, validation=0)
    assert 1 <= few < 4 and size <= 10_000


@pytest.mark.slow
def test_everything_rehearsed(repository: Path, tmp_path: Path) -> None:
    source = repository / "datasets" / "example" / "gt"
    command = [sys.executable, str(repository / "scripts" / "gpu_crops.py"), str(source), str(tmp_path / "crops")]
    subprocess.run([*command, "--size", "64", "--megabytes", "1", "--validation", "2"], check=True)
    crop = np.asarray(Image.open(next((tmp_path / "crops" / "train").iterdir())))
    for index in range(2):  # the recipe cuts patches of 128 pixels
        Image.fromarray(np.tile(crop, (3, 3, 1))).save(tmp_path / "crops" / "train" / f"large{index}.png")
    for path in (tmp_path / "crops" / "train").glob("*.webp"):
        path.unlink()
    done = run(repository, str(tmp_path / "out"), "--crops", str(tmp_path / "crops"), "--seconds", "600", "--rehearse")
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert done.returncode == 0, summary + done.stderr
    assert [line.split(":")[0] for line in summary.splitlines()[2:]] == [
        "machine", "parity", "tests", "scan", "networks", "probe", "training", "packaging",
    ]  # fmt: skip
    assert (tmp_path / "out" / "trained.safetensors").stat().st_size > 10**5
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        names = archive.getnames()
    assert "results/parity.jsonl" in names and "results/training.jsonl" in names
