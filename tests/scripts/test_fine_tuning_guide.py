"""The commands of docs/fine_tuning.md run as they stand, on the example images and for two steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFilter


@pytest.mark.slow
def test_the_guide_runs(
    load_script: Callable[[str], ModuleType],
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")])))
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (144, 208, 3), dtype=np.uint8)
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "pictures" / f"im{index}.png")
    script = load_script("fine_tuning_guide")
    script.main([str(tmp_path / "pictures"), "--work", str(tmp_path / "work"), "--iterations", "2"])
    shown = capfd.readouterr().out
    rows = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("|")]
    assert rows[-3:] == ["bicubic", "before", "after"]
    assert len(list((tmp_path / "work/photos/val").iterdir())) == 1
    assert (tmp_path / "work/restored/im0.png").is_file()


def test_every_command_is_found(load_script: Callable[[str], ModuleType], repository: Path) -> None:
    script = load_script("fine_tuning_guide")
    found = list(script.commands((repository / "docs/fine_tuning.md").read_text(encoding="utf-8"), 40))
    assert [words[:2] for words in found] == [
        ["mambair", "data"],
        ["mambair", "test"],
        ["mambair", "train"],
        ["mambair", "train"],
        ["mambair", "test"],
        ["mambair", "restore"],
    ]
    assert found[3][-3:] == ["train:total_iter=40", "val:val_freq=40", "train:warmup_iter=4"]
