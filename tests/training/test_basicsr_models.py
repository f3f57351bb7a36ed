"""BasicSR's own model and networks in this engine, from an option file (where basicsr is installed)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from mambair.registry import basicsr_installed
from mambair.train import main

pytestmark = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")

OPTIONS = """
name: theirs
model_type: basicsr/SRModel
scale: 2
num_gpu: 0
manual_seed: 3
datasets:
  train: {{type: BicubicDataset, dataroot_gt: {images}, gt_size: 16, total_batch_size: 2}}
  val: {{name: few, type: BicubicDataset, dataroot_gt: {images}}}
network_g: {network}
path: {{strict_load_g: true}}
train:
  total_iter: 6
  ema_decay: 0.9
  optim_g: {{type: Adam, lr: 1e-3}}
  scheduler: {{type: MultiStepLR, milestones: [4], gamma: 0.5}}
  pixel_opt: {{type: L1Loss}}
val:
  val_freq: 3
  metrics: {{psnr: {{type: calculate_psnr, crop_border: 2, test_y_channel: false}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 3}}
"""
EDSR = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 2, img_range: 1.}"
OURS = (
    "{type: MambaIR, upscale: 2, upsampler: pixelshuffledirect, embed_dim: 8, depths: [1], d_state: 2, mlp_ratio: 1.0}"
)


RCAN = "{type: RCAN, num_in_ch: 3, num_out_ch: 3, num_feat: 16, num_group: 1, num_block: 1, upscale: 2, img_range: 1.}"
SWINIR = (
    "{type: SwinIR, upscale: 2, img_size: 8, window_size: 4, depths: [2], embed_dim: 8, num_heads: [2], mlp_ratio: 1, "
    "img_range: 1., upsampler: pixelshuffledirect, resi_connection: 1conv}"
)


@pytest.fixture
def option_file(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes an option file for a network, over two small images, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for path in sorted((repository / "datasets" / "example" / "gt").iterdir())[:2]:
        Image.open(path).convert("RGB").crop((0, 0, 32, 24)).save(tmp_path / "images" / path.name)

    def make(network: str) -> Path:
        made = tmp_path / "theirs.yml"
        made.write_text(OPTIONS.format(images=tmp_path / "images", network=network))
        return made

    return make


@pytest.mark.parametrize("model", ["SRModel", "basicsr/SRModel"], ids=["in our model", "in theirs"])
@pytest.mark.parametrize("network", [EDSR, RCAN, SWINIR], ids=["EDSR", "RCAN", "SwinIR"])
def test_their_networks_train_from_an_option_file(
    tmp_path: Path, option_file: Callable[[str], Path], network: str, model: str
) -> None:
    changes = [f"model_type={model}", "train:total_iter=3", "logger:save_checkpoint_freq=1"]
    assert main(["-opt", str(option_file(network)), "--force_yml", *changes]) == 0
    models = tmp_path / "experiments" / "theirs" / "models"
    first, last = (torch.load(models / f"net_g_{number}.pth", weights_only=True)["params"] for number in (1, 3))
    assert any(not torch.equal(value, last[name]) for name, value in first.items())
    assert all(bool(torch.isfinite(value).all()) for value in last.values() if value.is_floating_point())


@pytest.mark.parametrize("network", [EDSR, OURS], ids=["EDSR", "MambaIR"])
def test_their_model_trains_validates_and_resumes(
    tmp_path: Path, option_file: Callable[[str], Path], network: str
) -> None:
    options = str(option_file(network))
    assert main(["-opt", options, "--force_yml", "name=whole"]) == 0
    assert main(["-opt", options, "--force_yml", "train:total_iter=3"]) == 0
    assert main(["-opt", options, "--auto_resume"]) == 0
    whole, resumed = (
        torch.load(tmp_path / "experiments" / name / "models" / "net_g_latest.pth", weights_only=True)
        for name in ("whole", "theirs")
    )
    for key in ("params", "params_ema"):
        for name, value in whole[key].items():
            assert torch.equal(value, resumed[key][name]), name
    lines = (tmp_path / "experiments" / "whole" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["iter"] for record in records if record.get("validation") == "few"] == [3, 6]
    assert all("l_pix" in record or "psnr" in record for record in records)
