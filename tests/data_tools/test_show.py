"""The contact sheet shows what a training takes, and says what was drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mambair.commands.data import main
from mambair.data import build_dataset
from mambair.data.loader import SampleSequence
from mambair.data_tools.show import show_data
from mambair.images.files import ImageFileError, read_image

DATASETS: dict[str, dict[str, Any]] = {
    "synthetic": {"type": "RealESRGANDataset", "degraded_size": 40},
    "device": {"type": "RealESRGANDataset", "degraded_size": 40, "degrade_on": "device", "preset": "photo"},
    "bicubic": {"type": "BicubicDataset"},
    "gray": {"type": "BicubicDataset", "color": "gray"},
}


def options(repository: Path, kind: str) -> dict[str, Any]:
    common = {"scale": 4, "dataroot_gt": str(repository / "datasets" / "example" / "gt")}
    train = {**DATASETS[kind], **common, "phase": "train", "gt_size": 32}
    return {"manual_seed": 3, "datasets": {"train": train, "val": {**common, "type": "BicubicDataset", "phase": "val"}}}


@pytest.mark.parametrize("kind", DATASETS)
def test_the_sheet_of_a_training(repository: Path, tmp_path: Path, kind: str) -> None:
    opt = options(repository, kind)
    text = show_data(opt, tmp_path / "made" / "sheet.png", count=5)
    assert text == tmp_path / "made" / "sheet.txt"
    sheet = read_image(tmp_path / "made" / "sheet.png").pixels
    assert sheet.shape == (2 * (32 + 14 + 8), 4 * (2 * 32 + 4 + 8), 3)
    lines = text.read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["0", "1", "2", "3", "4"]
    dataset, sequence = build_dataset(opt["datasets"]["train"]), SampleSequence(8, seed=3)
    for number, line in enumerate(lines):
        sample = dataset.sample(sequence.index(number), sequence.rng(number))
        assert sample["gt_path"] in line
        if kind == "synthetic":
            assert line.endswith(f": {sample['degradation']}")
        if kind == "bicubic":
            top, left = 4 + number // 4 * 54 + 14, 4 + number % 4 * 76
            lq, gt = ((sample[key].permute(1, 2, 0).numpy() * 255).round() for key in ("lq", "gt"))
            assert np.array_equal(sheet[top : top + 32, left : left + 32], lq.repeat(4, 0).repeat(4, 1))
            assert np.array_equal(sheet[top : top + 32, left + 36 : left + 68], gt)
            assert line.endswith(": -")


def test_the_sheet_of_a_validation_has_its_images_only(repository: Path, tmp_path: Path) -> None:
    text = show_data(options(repository, "bicubic"), tmp_path / "sheet.png", label="val", count=50)
    assert len(text.read_text().splitlines()) == 8


def test_faults(repository: Path, tmp_path: Path) -> None:
    opt = options(repository, "bicubic")
    with pytest.raises(ValueError, match="no data set 'test_1' in the option file; it has train, val"):
        show_data(opt, tmp_path / "sheet.png", label="test_1")
    with pytest.raises(ValueError, match="count: expected a positive number, got 0"):
        show_data(opt, tmp_path / "sheet.png", count=0)
    with pytest.raises(ImageFileError, match="the suffix must be one of"):
        show_data(opt, tmp_path / "sheet.doc", count=1)
    assert not list(tmp_path.iterdir())


def test_the_script(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    sheet = tmp_path / "sheet.png"
    assert main(["show", "options/train_DN_sigma25.yml", "-o", str(sheet), "-n", "2"]) == 0
    assert sheet.is_file()
    assert "gaussian noise sigma 25.00" in sheet.with_suffix(".txt").read_text()
    assert str(sheet) in capsys.readouterr().out
    assert main(["show", "options/train_DN_sigma25.yml", "-o", str(sheet), "--dataset", "val_9"]) == 2
    assert "no data set 'val_9'" in capsys.readouterr().err
