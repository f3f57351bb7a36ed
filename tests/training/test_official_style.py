"""An option file in the style of the official MambaIR repository trains, with the batch it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mambair.images.files import DecodedImage, list_images, read_rgb, write_image
from mambair.images.resize import imresize
from mambair.train import main

OFFICIAL = """
name: official
model_type: MambaIRModel
scale: 2
num_gpu: 4
manual_seed: 10
datasets:
  train:
    task: SR
    name: few
    type: PairedImageDataset
    dataroot_gt: {root}/train
    dataroot_lq: {root}/train_x2
    filename_tmpl: '{{}}x2'
    io_backend: {{type: disk}}
    gt_size: 16
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val_1:
    task: SR
    name: example
    type: PairedImageDataset
    dataroot_gt: {root}/train
    dataroot_lq: {root}/train_x2
    filename_tmpl: '{{}}x2'
    io_backend: {{type: disk}}
network_g:
  type: MambaIR
  upscale: 2
  in_chans: 3
  img_size: 64
  img_range: 1.
  d_state: 2
  depths: [1]
  embed_dim: 8
  mlp_ratio: 1
  upsampler: pixelshuffledirect
  resi_connection: 1conv
path: {{pretrain_network_g: ~, strict_load_g: true, resume_state: ~}}
train:
  optim_g: {{type: Adam, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.99]}}
  scheduler: {{type: MultiStepLR, milestones: [1, 2], gamma: 0.5}}
  total_iter: 2
  warmup_iter: -1
  pixel_opt: {{type: L1Loss, loss_weight: 1.0, reduction: mean}}
val:
  val_freq: !!float 2
  save_img: false
  pbar: False
  selfensemble_testing: false
  metrics: {{psnr: {{type: calculate_psnr, crop_border: 2, test_y_channel: true}}}}
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: false
  wandb: {{project: ~, resume_id: ~}}
dist_params: {{backend: nccl, port: 29500}}
"""


def test_it_trains_with_the_official_batch_on_one_process(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in list_images(repository / "datasets" / "example" / "gt")[:3]:
        pixels = read_rgb(path)[:24, :32]
        write_image(tmp_path / "train" / path.name, DecodedImage(pixels))
        write_image(tmp_path / "train_x2" / f"{path.stem}x2.png", DecodedImage(imresize(pixels, 0.5)))
    (tmp_path / "official.yml").write_text(OFFICIAL.format(root=tmp_path))
    assert main(["-opt", "official.yml"]) == 0
    assert "batch: 8 images a step = 1 process(es) x 4 pass(es) x 2" in capsys.readouterr().out
    run = tmp_path / "experiments" / "official"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["iter"] for record in records if "validation" in record] == [2]
    assert "params_ema" not in torch.load(run / "models" / "net_g_latest.pth", weights_only=True)
