"""BasicSR's own training program with our networks: ``connect_basicsr()`` before it is all it takes."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import mambair
from mambair.registry import basicsr_installed

pytestmark = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")

PROGRAM = """
from mambair.registry import connect_basicsr

connect_basicsr()

from basicsr.train import train_pipeline

train_pipeline({root!r})
"""
# an option file as BasicSR's users write it: with its own words for batches, files and validation
OPTIONS = """
name: guest
model_type: {model}
scale: 2
num_gpu: 0
manual_seed: 3
datasets:
  train:
    name: example
    type: {dataset}
    dataroot_gt: {root}/gt{pairs}
    io_backend: {{type: disk}}
    gt_size: 16
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 2
    prefetch_mode: ~
  val:
    name: few
    type: {dataset}
    dataroot_gt: {root}/gt{pairs}
    io_backend: {{type: disk}}
network_g: {network}
path: {{pretrain_network_g: ~, strict_load_g: true, resume_state: ~}}
train:
  ema_decay: 0.9
  optim_g: {{type: Adam, lr: !!float 1e-3, weight_decay: 0, betas: [0.9, 0.99]}}
  scheduler: {{type: MultiStepLR, milestones: [4], gamma: 0.5}}
  total_iter: 5
  warmup_iter: -1
  pixel_opt: {{type: {loss}, loss_weight: 1.0, reduction: mean}}
val:
  val_freq: 3
  save_img: false
  metrics: {{psnr: {{type: calculate_psnr, crop_border: 2, test_y_channel: false}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 3, use_tb_logger: false, wandb: {{project: ~, resume_id: ~}}}}
dist_params: {{backend: nccl, port: 29500}}
"""
MAMBAIR = "{type: MambaIR, upscale: 2, upsampler: pixelshuffledirect, embed_dim: 8, depths: [1], d_state: 2}"
MAMBAIRV2 = (
    "{type: MambaIRv2Light, upscale: 2, upsampler: pixelshuffledirect, embed_dim: 8, depths: [1], num_heads: [2], "
    "d_state: 2, window_size: 4, inner_rank: 3, num_tokens: 4, mlp_ratio: 1.0}"
)
PAIRS = """
    dataroot_lq: {root}/lq
    filename_tmpl: '{{}}'"""
RUNS = {
    "our-model": {"model": "MambaIRModel", "dataset": "BicubicDataset", "network": MAMBAIR, "loss": "CharbonnierLoss"},
    "their-model": {"model": "SRModel", "dataset": "PairedImageDataset", "network": MAMBAIRV2, "loss": "L1Loss"},
}


@pytest.fixture
def images(tmp_path: Path, repository: Path) -> Path:
    """Two pairs of small images, cut from the example images, in gt/ and lq/."""
    for folder in ("gt", "lq"):
        (tmp_path / folder).mkdir()
    for path in sorted((repository / "datasets" / "example" / "gt").iterdir())[:2]:
        image = Image.open(path).convert("RGB").crop((0, 0, 32, 24))
        image.save(tmp_path / "gt" / path.name)
        image.resize((16, 12)).save(tmp_path / "lq" / path.name)
    return tmp_path


@pytest.mark.parametrize("choice", RUNS.values(), ids=RUNS.keys())
def test_train_pipeline(choice: dict[str, str], images: Path, repository: Path) -> None:
    pairs = PAIRS.format(root=images) if choice["dataset"] == "PairedImageDataset" else ""
    (images / "options.yml").write_text(OPTIONS.format(root=images, pairs=pairs, **choice))
    (images / "program.py").write_text(PROGRAM.format(root=str(images)))
    paths = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "program.py", "-opt", "options.yml"],
        cwd=images,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = images / "experiments" / "guest"
    log = next(results.glob("train_guest_*.log")).read_text()
    losses = [float(loss) for loss in re.findall(r"\[epoch: .*l_pix: (\S+)", log)]
    assert len(losses) == 5
    assert all(math.isfinite(loss) for loss in losses)
    if choice["model"] == "MambaIRModel":  # ours says it in its own words, and keeps the best weights
        assert re.search(r"INFO: validation of few at iter 3: psnr \d+\.\d+ \(best", log)
        assert (results / "models" / "net_g_best.pth").is_file()
    else:
        assert "# psnr:" in log
    assert (results / "training_states" / "3.state").is_file()
    early, late = (torch.load(results / "models" / f"net_g_{label}.pth", weights_only=True) for label in (3, "latest"))
    assert any(not torch.equal(value, late["params"][name]) for name, value in early["params"].items())
    net = mambair.load(results / "models" / "net_g_latest.pth")
    with torch.no_grad():
        assert net(torch.rand(1, 3, 6, 5)).shape == (1, 3, 12, 10)
