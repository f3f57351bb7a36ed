"""Adan, SOAP and schedule-free AdamW of pytorch-optimizer: what they compute, exact resume, and without the library."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mambair.models.ema import ScheduleFreeAverage
from mambair.models.optimizers import build_optimizer
from mambair.options.optimizer_library import LIBRARY, MissingLibraryError
from mambair.train import main

OPTIONS = """
name: library
model_type: MambaIRModel
scale: 2
num_gpu: 0
manual_seed: 1
datasets:
  train: {{type: BicubicDataset, dataroot_gt: {root}/gt, gt_size: 16, total_batch_size: 1}}
  val: {{name: val, type: BicubicDataset, dataroot_gt: {root}/gt}}
network_g: {{type: MambaIR, upscale: 2, embed_dim: 8, depths: [1], d_state: 2, mlp_ratio: 1,
  upsampler: pixelshuffledirect}}
train: {{optim_g: {{type: {name}, lr: 1e-3, weight_decay: 0.1}}, total_iter: 5, pixel_opt: {{type: L1Loss}}}}
val: {{val_freq: 2, metrics: {{psnr: {{type: calculate_psnr, crop_border: 2}}}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 3}}
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt").mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"gt/im{index}.png")

    def write(name: str) -> list[str]:
        (tmp_path / "file.yml").write_text(OPTIONS.format(root=tmp_path, name=name))
        return ["-opt", str(tmp_path / "file.yml")]

    return write


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, times: int = 4) -> None:
    for number in range(times):
        generator = torch.Generator().manual_seed(number)
        for weight in net.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", LIBRARY)
def test_steps_are_the_librarys(name: str) -> None:
    library = pytest.importorskip("pytorch_optimizer")
    net, other = network(), network()
    steps(net, build_optimizer({"type": name, "lr": 1e-2, "weight_decay": 0.1}, net))
    kernels, biases = ([w for w in other.parameters() if (w.ndim > 1) == decays] for decays in (True, False))
    groups = [{"params": kernels}, {"params": biases, "weight_decay": 0.0}]
    steps(other, getattr(library, name)(groups, lr=1e-2, weight_decay=0.1))
    for weight, expected in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, expected)


def test_the_average_is_the_librarys_and_leaves_the_weights_alone() -> None:
    pytest.importorskip("pytorch_optimizer")
    net = network()
    optimizer = build_optimizer({"type": "ScheduleFreeAdamW", "lr": 1e-2}, net)
    average = ScheduleFreeAverage(net, optimizer)
    steps(net, optimizer)
    before = [weight.clone() for weight in net.parameters()]
    average.update(net, 4)
    assert all(map(torch.equal, net.parameters(), before))
    optimizer.eval()  # type: ignore[attr-defined]
    for weight, own, trained in zip(net.parameters(), average.net.parameters(), before, strict=True):
        torch.testing.assert_close(own, weight, rtol=0, atol=0)
        assert not torch.equal(own, trained)


@pytest.mark.parametrize("name", LIBRARY)
def test_resume_is_exact(name: str, options, tmp_path: Path) -> None:
    """5 iterations; and the same from the checkpoint of iteration 3 on, validations and all."""
    pytest.importorskip("pytorch_optimizer")
    assert main(options(name)) == 0
    models = tmp_path / "experiments/library/models"
    whole = torch.load(models / "net_g_5.pth", weights_only=True)
    states = tmp_path / "experiments/library/training_states"
    for path in (models / "net_g_5.pth", models / "net_g_latest.pth", states / "5.state"):
        path.unlink(missing_ok=True)
    assert main([*options(name), "--auto_resume"]) == 0
    resumed = torch.load(models / "net_g_5.pth", weights_only=True)
    assert (whole.keys() == resumed.keys()) and ("params_ema" in whole) == ("Free" in name)
    for key in whole.keys() - {"metadata"}:
        for weight in whole[key]:
            assert torch.equal(whole[key][weight], resumed[key][weight]), weight


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("train:ema_decay=0.9", "train.ema_decay: ScheduleFreeAdamW keeps an average itself; delete this key"),
        ("train:scheduler={type: CosineAnnealingLR}", "train.scheduler: ScheduleFreeAdamW needs a constant rate"),
        ("train:optim_g:beta=1", "ScheduleFreeAdamW has no argument 'beta'"),
    ],
    ids=["average", "schedule", "argument"],
)
def test_refusals(more: str, message: str, options, capfd: pytest.CaptureFixture) -> None:
    pytest.importorskip("pytorch_optimizer")
    assert main([*options("ScheduleFreeAdamW"), "--check", "--force_yml", more]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("name", LIBRARY)
def test_without_the_library(name: str, options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    assert main([*options(name), "--check"]) == 2
    shown = capfd.readouterr().err
    assert f"train.optim_g.type: optimiser {name} needs pytorch-optimizer" in shown
    assert "run: pip install 'mambair[optimizers]'" in shown
    with pytest.raises(MissingLibraryError, match="needs pytorch-optimizer"):
        build_optimizer({"type": name, "lr": 1e-3}, network())
