"""A small valid training file, its folders, and a way to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TRAINING = """\
name: small
model_type: RestorationModel
scale: 4
manual_seed: 1
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: lq
    gt_size: 16
    total_batch_size: 2
  val:
    type: BicubicDataset
    dataroot_gt: gt
network_g:
  type: MambaIR
  upscale: 4
  embed_dim: 8
  depths: [1]
  d_state: 2
  mlp_ratio: 1.2
  upsampler: pixelshuffledirect
path:
  pretrain_network_g: ~
train:
  total_iter: 10
  optim_g:
    type: Adam
    lr: 1e-4
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [5]
  pixel_opt:
    type: L1Loss
val:
  val_freq: 5
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
logger:
  print_freq: 1
"""

TESTING = """\
name: small_test
model_type: RestorationModel
scale: 4
manual_seed: 0
datasets:
  test_1:
    type: BicubicDataset
    dataroot_gt: gt
network_g:
  type: MambaIR
  upscale: 4
  embed_dim: 8
  depths: [1]
  upsampler: pixelshuffledirect
val:
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
"""

Write = Callable[..., Path]
Refused = Callable[..., list[str]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with pairs of images in gt and lq."""
    monkeypatch.chdir(tmp_path)
    for variable in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    for folder, side in (("gt", 16), ("lq", 4)):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / folder / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"")
    return tmp_path


@pytest.fixture
def write(workspace: Path) -> Write:
    """Writes a valid option file with the given text replaced; every replaced text must be there once."""

    def write_file(*changes: tuple[str, str], is_train: bool = True) -> Path:
        text = TRAINING if is_train else TESTING
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
            text = text.replace(old, new)
        path = workspace / "file.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs train.py or test.py on a broken file: exit code 2, nothing written; returns the lines of its message."""

    def run(path: Path, *, is_train: bool = True) -> list[str]:
        from mambair import test, train

        before = sorted(workspace.rglob("*"))
        assert (train if is_train else test).main(["-opt", str(path)]) == 2
        assert sorted(workspace.rglob("*")) == before, "something was started"
        output = capsys.readouterr()
        assert output.out == ""
        return output.err.splitlines()

    return run
