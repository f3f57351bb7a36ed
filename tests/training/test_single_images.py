"""Photographs without ground truth in validation and in ``mambair test``, beside a set that has one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair import test as mambair_test
from mambair.images.resize import imresize
from mambair.metrics import calculate_niqe
from mambair.train import main

SETS = """
  {first}: {{name: pairs, type: BicubicDataset, dataroot_gt: {root}/gt}}
  {second}: {{name: photos, type: SingleImageDataset, dataroot_lq: {root}/lq}}
"""
SHARED = """
model_type: MambaIRModel
scale: 2
num_gpu: 0
manual_seed: 1
network_g: {type: MambaIR, upscale: 2, embed_dim: 8, depths: [1], d_state: 2, mlp_ratio: 1,
  upsampler: pixelshuffledirect}
"""
TRAIN = """
train: {optim_g: {type: Adam, lr: 1e-4}, total_iter: 1, pixel_opt: {type: L1Loss}}
logger: {print_freq: 1, save_checkpoint_freq: 1}
"""
METRICS = "psnr: {type: calculate_psnr, crop_border: 2}, niqe: {type: calculate_niqe, crop_border: 0}"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, size in {"gt": (100, 200), "lq": (50, 100)}.items():
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{name}.png")

    def write(text: str) -> list[str]:
        file = tmp_path / "file.yml"
        file.write_text(text)
        return ["-opt", str(file)]

    return write


def training(root: Path, metrics: str, own: str = "") -> str:
    sets = SETS.format(first="val", second="val_2", root=root).replace("/lq}", f"/lq{own}}}")
    train = f"\n  train: {{type: BicubicDataset, dataroot_gt: {root}/gt, gt_size: 16, total_batch_size: 1}}"
    return f"name: photos\ndatasets:{train}{sets}{SHARED}{TRAIN}val: {{val_freq: 1, metrics: {{{metrics}}}}}\n"


def test_validation(write, tmp_path: Path) -> None:
    assert main(write(training(tmp_path, METRICS))) == 0
    lines = (tmp_path / "experiments/photos/metrics.jsonl").read_text().splitlines()
    pairs, photos = [record for record in map(json.loads, lines) if "validation" in record]
    assert (pairs["validation"], photos["validation"]) == ("pairs", "photos")
    assert "psnr" in pairs and "niqe" in pairs and "psnr" not in photos and photos["niqe"] > 0
    enlarged = np.asarray(imresize(np.asarray(Image.open(tmp_path / "lq/lq.png")), 2))
    assert photos["baseline"] == {"name": "bicubic", "niqe": calculate_niqe(enlarged[:, :, ::-1], 0)}


@pytest.mark.parametrize(
    ("metrics", "own", "message"),
    [
        (METRICS, ", metrics: {p: {type: calculate_psnr, crop_border: 0}}", "calculate_psnr needs a ground truth"),
        (
            "niqe: {type: calculate_niqe, crop_border: 50}",
            "",
            "niqe: gt.png: img: must keep at least 96x96",
        ),
    ],
    ids=["a metric of its own", "too small"],
)
def test_refusals(write, tmp_path: Path, metrics: str, own: str, message: str, capfd: pytest.CaptureFixture) -> None:
    assert main(write(training(tmp_path, metrics, own))) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "experiments").exists()


def test_testing(write, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    sets = SETS.format(first="test_1", second="test_2", root=tmp_path)
    text = f"name: photos\ndatasets:{sets}{SHARED}val: {{save_img: true, metrics: {{{METRICS}}}}}\n"
    assert mambair_test.main(write(text)) == 0
    shown = capfd.readouterr().out
    assert "pairs: psnr: all channels (RGB), crop border 2 / niqe: Y channel" in shown and "| photos: niqe: Y" in shown
    sets_of = {
        each["name"]: each
        for each in json.loads((tmp_path / "results/photos/metrics.json").read_text())["levels"][0]["sets"]
    }
    assert list(sets_of["photos"]["methods"]["photos"]["mean"]) == ["niqe"]
    restored = np.asarray(Image.open(tmp_path / "results/photos/visualization/photos/lq_photos.png"))
    assert sets_of["photos"]["methods"]["photos"]["mean"]["niqe"] == calculate_niqe(restored[:, :, ::-1], 0)
