"""BasicSR's own model and networks in this engine, from an option file (where basicsr is installed)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
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
    tmp_path: Path, option_file: Callable[[str], Path], network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, lines = str(option_file(network)), []
    worst = "val:metrics:psnr:better=lower"  # the first of two, as a training improves
    for changes in (["name=whole", worst], ["train:total_iter=3", worst]):
        assert main(["-opt", options, "--force_yml", *changes]) == 0
        lines.append(capsys.readouterr().out)
    assert main(["-opt", options, "--auto_resume", "--force_yml", worst]) == 0
    lines = [line[24:] for line in (lines[0] + capsys.readouterr().out).splitlines() if "few at iter 6" in line]
    assert len(lines) == 2 and lines[0] == lines[1] and lines[0].endswith(" at 3)")
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


@pytest.mark.parametrize("name", ["start.safetensors", "start.pth"], ids=["by name", "by the first bytes"])
def test_start_weights_that_they_cannot_read_are_named_beforehand(
    tmp_path: Path, option_file: Callable[[str], Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors.torch.save_file({"weight": torch.ones(1)}, tmp_path / name)
    changes = [f"path:pretrain_network_g={name}"]
    assert main(["-opt", str(option_file(EDSR)), "--force_yml", *changes]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    reason = "is a safetensors file; models of basicsr read .pth files: run scripts/convert_checkpoint.py"
    assert said == f"--force_yml {changes[0]}: path.pretrain_network_g: {tmp_path / name} {reason}"
    assert not (tmp_path / "experiments").exists()


THEIRS = {
    "basicsr/L1Loss": ("pixel_opt: {{type: L1Loss}}", "pixel_opt: {{type: basicsr/L1Loss}}"),
    "basicsr/calculate_psnr": ("type: calculate_psnr", "type: basicsr/calculate_psnr"),
    "basicsr/PairedImageDataset": (
        "train: {{type: BicubicDataset, dataroot_gt: {images}, gt_size: 16, total_batch_size: 2}}",
        "train: {{type: basicsr/PairedImageDataset, dataroot_gt: {images}, dataroot_lq: {images}_x2, gt_size: 16, "
        "total_batch_size: 2, io_backend: {{type: disk}}, use_hflip: true, use_rot: true}}",
    ),
}
DISCRIMINATOR = "\nnetwork_d: {{type: {prefix}UNetDiscriminatorSN, num_in_ch: 3, num_feat: 4}}\n"
GAN = (
    "  optim_d: {{type: Adam, lr: 1e-4}}\n"
    "  gan_opt: {{type: {prefix}GANLoss, gan_type: vanilla, loss_weight: 0.1}}\n  pixel_opt"
)
MODELS = ["RestorationModel", "basicsr/SRModel", "basicsr/SwinIRModel", "basicsr/SRGANModel", "ESRGANModel"]


def with_their_names(model: str, prefix: str) -> str:
    """OPTIONS for a model type with names of basicsr in every place where a name may stand."""
    text = OPTIONS.replace("basicsr/SRModel", model)
    for old, new in THEIRS.values():
        assert text.count(old) == 1
        text = text.replace(old, new)
    if "GAN" in model:
        text = text.replace("\npath:", DISCRIMINATOR.replace("{prefix}", prefix) + "path:")
        text = text.replace("  pixel_opt", GAN.replace("{prefix}", prefix))
    return text


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["train", "check"])
@pytest.mark.parametrize("model", MODELS)
def test_their_names_may_stand_in_every_place(
    tmp_path: Path, option_file: Callable[[str], Path], model: str, mode: list[str]
) -> None:
    network = (SWINIR if "SwinIR" in model else EDSR).replace("type: ", "type: basicsr/")
    path = option_file(network)
    (tmp_path / "images_x2").mkdir()
    for image in (tmp_path / "images").iterdir():
        Image.open(image).resize((16, 12)).save(tmp_path / "images_x2" / image.name)
    path.write_text(with_their_names(model, "basicsr/").format(images=tmp_path / "images", network=network))
    assert main(["-opt", str(path), *mode]) == 0
    if mode:
        assert not (tmp_path / "experiments").exists()
        return
    run = tmp_path / "experiments" / "theirs"
    weights = torch.load(run / "models" / "net_g_latest.pth", weights_only=True)["params"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines if "validation" in line] == [3, 6]
    assert all(line["psnr"] > 5 for line in lines if "validation" in line)


def test_our_network_trains_against_their_discriminator_of_one_size(
    tmp_path: Path, option_file: Callable[[str], Path]
) -> None:
    path = option_file(OURS)
    text = OPTIONS.replace("basicsr/SRModel", "SRGANModel").replace("gt_size: 16", "gt_size: 128")
    discriminator = DISCRIMINATOR.replace("{prefix}UNetDiscriminatorSN", "VGGStyleDiscriminator")
    text = text.replace("\npath:", discriminator.replace("num_feat: 4", "num_feat: 2") + "path:")
    text = text.replace("  pixel_opt", GAN.replace("{prefix}", "")).replace("total_iter: 6", "total_iter: 3")
    text = text.replace("milestones: [4]", "milestones: [3]")
    for image in (tmp_path / "images").iterdir():
        Image.open(image).resize((128, 128)).save(image)
    path.write_text(text.format(images=tmp_path / "images", network=OURS))
    assert main(["-opt", str(path)]) == 0


def test_their_model_gets_a_best_checkpoint_and_a_line_like_ours(
    tmp_path: Path, option_file: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-opt", str(option_file(EDSR)), "--force_yml", "val:val_freq=1", "train:optim_g:lr=0.01"]) == 0
    run = tmp_path / "experiments" / "theirs"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {line["iter"]: line["psnr"] for line in lines if "validation" in line}
    assert sorted(values) == [1, 2, 3, 4, 5, 6]
    leader = max(values, key=lambda iteration: (values[iteration], iteration))
    told = capsys.readouterr().out
    assert f"validation of few at iter 6: psnr {values[6]:.4f} (best {values[leader]:.4f} at {leader})" in told
    best = torch.load(run / "models" / "net_g_best.pth", weights_only=True)
    assert best.keys() == {"params", "params_ema"}
    if leader in (3, 6):
        saved = torch.load(run / "models" / f"net_g_{leader}.pth", weights_only=True)
        assert all(torch.equal(value, saved["params_ema"][name]) for name, value in best["params_ema"].items())


OTHERS = ["VideoBaseModel", "VideoRecurrentModel", "EDVRModel", "StyleGAN2Model", "HiFaceGANModel", "RealESRNetModel"]
OTHERS += ["RealESRGANModel", "VideoGANModel", "VideoRecurrentGANModel"]


@pytest.mark.parametrize("model", OTHERS)
def test_their_models_of_other_tasks_train_or_are_refused(
    tmp_path: Path, option_file: Callable[[str], Path], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = option_file(EDSR)
    path.write_text(path.read_text().replace("basicsr/SRModel", model))
    code = main(["-opt", str(path), "--force_yml", "train:total_iter=2"])
    told = capsys.readouterr().err
    run = tmp_path / "experiments" / "theirs"
    assert code in (0, 2)
    if code == 0:
        assert (run / "models" / "net_g_latest.pth").is_file()
    else:
        assert not run.exists() and f"{path}:" in told.splitlines()[-1], told
