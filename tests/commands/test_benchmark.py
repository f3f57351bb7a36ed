"""``mambair benchmark`` as a command: usage, exit codes, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.commands import benchmark


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Set5 of five noisy images, nothing else."""
    folder = tmp_path / "data/Set5"
    folder.mkdir(parents=True)
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"im {index}.png")
    return tmp_path / "data"


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return ["--suite", "light-sr", "--data", str(data), "--output", str(output), "--quiet", *more]


def test_all_measured(data: Path, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = repository / "mambair/weights/mambair_small_x4.safetensors"
    more = ["--sets", "set5", "--weights", f"small={weights}", "--device", "cpu", "--crop", "16"]
    assert benchmark.main(arguments(data, tmp_path / "out", *more)) == 0
    shown = capsys.readouterr()
    assert "10 images measured, 0 were there" in shown.out and "small" in shown.out
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert names == {
        "journal.jsonl",
        "report.html",
        "results.json",
        "results.md",
        "results.tex",
        "results_per_image.csv",
        "results_per_set.csv",
    }
    content = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert content["levels"][0]["scale"] == 4
    assert benchmark.main(arguments(data, tmp_path / "out", *more)) == 0
    assert "0 images measured, 10 were there" in capsys.readouterr().out


def test_short_names_of_suites(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--suite", "SR", "--levels", "2", "--sets", "Set5", "--no-html"]
    assert benchmark.main(arguments(data, tmp_path / "out", *more)) == 0
    assert json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["suite"] == "classic-sr"


def test_results_of_others(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").mkdir()
    (data / "Set5").rename(tmp_path / "theirs/Set5")
    (data / "Set5").symlink_to(tmp_path / "theirs/Set5")
    more = ["--sets", "Set5", "--levels", "2", "--results", f"perfect={tmp_path / 'theirs'}", "--no-html"]
    assert benchmark.main(arguments(data, tmp_path / "out", *more)) == 0
    assert "inf / 1.0000" in capsys.readouterr().out


def test_missing_sets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(arguments(data, tmp_path / "out", "--levels", "2", "--no-html")) == 1
    shown = capsys.readouterr()
    for name in ("Set14", "B100", "Urban100", "Manga109"):
        assert f"not measured: {name}: no folder {name}" in shown.err
    assert "Set5" in shown.out, "what is there is measured"
    assert not (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["--sets", "Set6"], "--sets Set6: light-sr has Set5, Set14, B100, Urban100, Manga109"),
        (["--levels", "9"], "--levels 9: the scale must be from 2 to 8"),
        ([], "say the scale to measure at: --levels N (the papers have 2, 3, 4)"),
        (["--suite", "color-dn", "--weights", "x.pth"], "say the sigma to measure at: --levels N"),
        (["--weights", "no.pth"], "--weights no.pth: there is no such file"),
        (["--levels", "2", "--results", "folder"], "--results folder: must be NAME=FOLDER"),
        (["--levels", "2", "--results", "a=nowhere"], "nowhere: there is no such folder of results"),
        (["--levels", "2", "--reference", "HAT"], "--reference HAT: printed for light-sr are MambaIR-light"),
        (["--levels", "2", "--crop", "4"], "--crop 4: must be at least 8 pixels"),
        (["--suite", "x"], "invalid choice: 'x'"),
    ],
    ids=["data", "set", "scale", "level", "sigma", "weights", "results", "folder", "reference", "crop", "suite"],
)
def test_usage(data: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments(data, tmp_path / "out", *more))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("suite", "more", "message"),
    [
        ("color-dn", ["--levels", "25"], "color-dn is for networks that keep the size"),
        ("light-sr", ["--levels", "2"], "--levels leaves out the scale of mambair_small_x4"),
    ],
    ids=["task", "scale"],
)
def test_weights_of_another_task(
    data: Path, tmp_path: Path, repository: Path, suite: str, more: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    weights = repository / "mambair/weights/mambair_small_x4.safetensors"
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([*arguments(data, tmp_path / "out", *more), "--suite", suite, "--weights", str(weights)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
