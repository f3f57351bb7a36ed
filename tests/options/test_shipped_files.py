"""Every option file of the project loads, and the published ones describe the published networks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mambair.options import load_options
from mambair.options.base_file import read_option_file
from mambair.options.yaml_reader import read_yaml_file
from mambair.registry import ARCH_REGISTRY

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = sorted(path.relative_to(OPTIONS).as_posix() for path in OPTIONS.rglob("*.yml"))
FIRST = ["train_SR_x4.yml", "train_DN_sigma25.yml"]
OWN_NETWORKS = ("VimSR", "VSSMUNet")  # of this project: there is no published layout
TRAINED_BY = {
    "test_SR_x4.yml": "train/train_MambaIR_small_SR_x4.yml",
    "test_DN_sigma25.yml": "train/train_MambaIR_small_DN25.yml",
}
# name of an option file -> name of the published key list, both with the scale put in
PUBLISHED = {
    r"MambaIR_SR_x(\d)": "mambair_classic_sr_x{}",
    r"MambaIR_lightSR_x(\d)": "mambair_light_sr_x{}",
    r"MambaIR_ColorDN_level\d\d": "mambair_color_dn",
    r"MambaIRv2_SRSmall_x(\d)": "mambairv2_small_sr_x{}",
    r"MambaIRv2_SR_x(\d)": "mambairv2_base_sr_x{}",
    r"MambaIRv2_SRLarge_x(\d)": "mambairv2_large_sr_x{}",
    r"MambaIRv2_lightSR_x(\d)": "mambairv2_light_sr_x{}",
    r"MambaIRv2_ColorDN_level\d\d": "mambairv2_color_dn",
    r"MambaIR_CAR_q\d\d": "mambair_gray_car",
    r"MambaIRv2_CAR_q\d\d": "mambairv2_gray_car",
    r"MambaIRUNet_RealDN": "mambair_unet_real_dn",
}


def load(name: str, *, check_paths: bool = False) -> dict[str, Any]:
    return load_options(OPTIONS / name, is_train=Path(name).name.startswith("train_"), check_paths=check_paths)


def published(name: str) -> str | None:
    """The published key list that belongs to an option file."""
    for pattern, key_list in PUBLISHED.items():
        match = re.fullmatch(rf"(?:train|test)_{pattern}", Path(name).stem)
        if match:
            return key_list.format(*match.groups())
    return None


@pytest.mark.usefixtures("with_vgg19")
@pytest.mark.parametrize("name", [name for name in FILES if "train_" in name])
def test_a_training_file_describes_what_its_name_says(
    name: str, golden: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opt = load(name)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert opt["name"].removeprefix("train_") in name
    arguments = {key: value for key, value in opt["network_g"].items() if key != "type"}
    with torch.device("meta"):
        net = ARCH_REGISTRY.get(opt["network_g"]["type"])(**arguments)
    assert net.upscale == opt["scale"]
    key_list = published(name)
    if key_list is not None:
        facts = json.loads((golden / "mambair" / "state_dict" / f"{key_list}.json").read_text())
        assert sum(parameter.numel() for parameter in net.parameters()) == facts["params"]
    else:
        assert "small" in name or "RealSR" in name or name in FIRST or opt["network_g"]["type"] in OWN_NETWORKS


TEST_FILES = [name for name in FILES if "test_" in name and "my_photos" not in name]  # whose weights tell the network


@pytest.mark.parametrize("name", TEST_FILES)
def test_a_test_file_tests_the_network_of_its_training_file(name: str, caplog: pytest.LogCaptureFixture) -> None:
    # without the network, which is that of a training file and checked there, as building it takes longest
    opt = load_options(OPTIONS / name, is_train=False, overrides=["network_g=~"], check_paths=False)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert opt["name"] == Path(name).stem
    training = TRAINED_BY.get(name, name.replace("test", "train"))
    test_file, training_file = (read_option_file(OPTIONS / file).data for file in (name, training))
    assert test_file["network_g"] == training_file["network_g"]
    assert test_file["scale"] == training_file["scale"]


@pytest.mark.parametrize("name", FIRST)
def test_the_first_trainings_find_their_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load(name, check_paths=True)


@pytest.mark.parametrize("name", FILES)
def test_paths_are_relative(name: str) -> None:
    text = (OPTIONS / name).read_text(encoding="utf-8")
    for path in re.findall(r"^\s*(?:dataroot_\w+|pretrain_network_g|resume_state): ([^~\s]+)", text, re.MULTILINE):
        assert re.match(r"(datasets|experiments|mambair/weights|photos)/", path)  # photos: a user's own, path


START = "pretrain_network_g strict_load_g total_iter lr milestones"
# names of variants -> the keys, by their last part, in which these may differ from their base
VARIANTS = {
    r".*SR_x[34](_stage\d)?": f"{START} scale upscale dataroot_lq filename_tmpl gt_size total_batch_size crop_border",
    r".*(SRSmall|SRLarge)_x[34]": f"{START} scale upscale dataroot_lq filename_tmpl gt_size crop_border",
    r".*ColorDN_level\d\d": f"{START} sigma",
    r".*CAR_q\d\d": f"{START} quality",
    r".*(SRSmall|SRLarge)_x2": "embed_dim depths num_heads pretrain_network_g",
    r".*MambaIRv2_lightSR_x2": "network_g model_type name dataroot_gt dataroot_lq lr pretrain_network_g",
    r".*MambaIR_lightSR_x2": "embed_dim d_state depths mlp_ratio upsampler name dataroot_gt dataroot_lq "
    "pretrain_network_g",
    r"train_(VimSR|VSSMUNet)_JPEG40": "train val",
}


def written_keys(section: dict[str, Any]) -> Iterator[str]:
    """The last part of every key; a section with a `type` of its own counts as one value."""
    for key, value in section.items():
        yield from written_keys(value) if isinstance(value, dict) and "type" not in value else [key]


@pytest.mark.parametrize("name", [name for name in FILES if "MambaIR_small" not in name])
def test_a_variant_states_only_what_differs_from_its_base(name: str) -> None:
    data = read_yaml_file(OPTIONS / name).data
    base = data.pop("base", None)
    if base is None:
        return
    assert data.pop("name") in (Path(name).stem, Path(name).stem.removeprefix("train_"))
    (allowed,) = [keys for pattern, keys in VARIANTS.items() if re.fullmatch(pattern, Path(name).stem)]
    assert set(written_keys(data)) <= set(allowed.split())
    base_data = read_option_file((OPTIONS / name).parent / base).data
    for key, value in data.items():
        assert base_data[key] != value, f"{key} is that of the base"


RECIPES = {
    # file: lr, iterations, total batch, patch, loss, weights to start from
    "MambaIR_SR_x2": (2e-4, 500_000, 32, 128, "L1Loss", None),
    "MambaIR_SR_x3": (1e-4, 250_000, 64, 192, "L1Loss", "MambaIR_SR_x2"),
    "MambaIR_SR_x4": (1e-4, 250_000, 32, 192, "L1Loss", "MambaIR_SR_x2"),
    "MambaIR_lightSR_x2": (2e-4, 500_000, 32, 128, "L1Loss", None),
    "MambaIR_lightSR_x3": (2e-4, 500_000, 32, 192, "L1Loss", None),
    "MambaIR_lightSR_x4": (2e-4, 500_000, 32, 192, "L1Loss", None),
    "MambaIR_ColorDN_level15": (2e-4, 1_600_000, 16, 128, "CharbonnierLoss", None),
    "MambaIR_ColorDN_level25": (1e-4, 800_000, 16, 128, "CharbonnierLoss", "MambaIR_ColorDN_level15"),
    "MambaIR_ColorDN_level50": (1e-4, 800_000, 16, 128, "CharbonnierLoss", "MambaIR_ColorDN_level15"),
    "MambaIRv2_SRSmall_x2": (1e-3, 500_000, 32, 128, "L1Loss", None),
    "MambaIRv2_SRSmall_x4": (1e-4, 250_000, 32, 192, "L1Loss", "MambaIRv2_SRSmall_x2"),
    "MambaIRv2_SR_x2": (1e-3, 500_000, 32, 128, "L1Loss", None),
    "MambaIRv2_SR_x3": (1e-4, 250_000, 32, 192, "L1Loss", "MambaIRv2_SR_x2"),
    "MambaIRv2_lightSR_x4": (2e-4, 500_000, 32, 192, "L1Loss", None),
    "MambaIRv2_ColorDN_level50": (1e-4, 800_000, 16, 128, "CharbonnierLoss", "MambaIRv2_ColorDN_level15"),
    "MambaIR_CAR_q40": (2e-4, 1_600_000, 16, 126, "CharbonnierLoss", None),
    "MambaIR_CAR_q30": (1e-4, 800_000, 16, 126, "CharbonnierLoss", "MambaIR_CAR_q40"),
    "MambaIR_CAR_q10": (1e-4, 800_000, 16, 126, "CharbonnierLoss", "MambaIR_CAR_q40"),
    "MambaIRv2_CAR_q40": (2e-4, 1_600_000, 16, 126, "CharbonnierLoss", None),
    "MambaIRv2_CAR_q30": (1e-4, 800_000, 16, 126, "CharbonnierLoss", "MambaIRv2_CAR_q40"),
    "MambaIRv2_CAR_q10": (1e-4, 800_000, 16, 126, "CharbonnierLoss", "MambaIRv2_CAR_q40"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_settings(name: str) -> None:
    rate, iterations, batch, patch, loss, start = RECIPES[name]
    opt = read_option_file(OPTIONS / "train" / f"train_{name}.yml").data
    train, data = opt["train"], opt["datasets"]["train"]
    assert train["optim_g"] == {"type": "Adam", "lr": rate, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert (train["total_iter"], data["total_batch_size"], data["gt_size"]) == (iterations, batch, patch)
    assert train["pixel_opt"]["type"] == loss
    assert train["scheduler"]["gamma"] == 0.5
    steps = [0.5, 0.75, 0.875, 0.9375] if loss == "CharbonnierLoss" else [0.5, 0.8, 0.9, 0.95]
    assert train["scheduler"]["milestones"] == [iterations * step for step in steps]
    weights = opt["path"]["pretrain_network_g"]
    assert weights is None if start is None else f"experiments/{start}/models/" in Path(weights).as_posix()
    assert opt["manual_seed"] == (42 if "CAR" in name else 10)
    if "CAR" in name:
        assert (data["type"], data["quality"], data["color"]) == ("JPEGArtifactsDataset", int(name[-2:]), "gray")
        assert opt["path"]["strict_load_g"] == (weights is None or "v2" not in name)


def test_the_published_settings_of_real_denoising() -> None:
    opt = read_option_file(OPTIONS / "train" / "train_MambaIRUNet_RealDN.yml").data
    train, data = opt["train"], opt["datasets"]["train"]
    assert train["optim_g"] == {"type": "AdamW", "lr": 3e-4, "weight_decay": 1e-4, "betas": [0.9, 0.999]}
    assert (train["total_iter"], data["total_batch_size"], opt["manual_seed"]) == (300_000, 8, 100)
    assert sum(data["iters"]) == train["total_iter"]
    assert data["gt_sizes"] == [128, 160, 192, 256, 320, 384]
    assert train["scheduler"]["periods"] == [92_000, 208_000]
    assert train["scheduler"]["eta_mins"] == [3e-4, 1e-6]
    assert train["grad_clip"] == 0.01


@pytest.mark.usefixtures("with_vgg19")
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("name", ["MambaIR_RealSR_x2", "MambaIR_RealSR_x4"])
def test_the_published_settings_of_real_photographs(name: str, stage: int) -> None:
    """HAT's real-world training: 1 million iterations with pixel loss, then 400,000 against a discriminator."""
    opt = load(f"train/train_{name}_stage{stage}.yml")
    train, data = opt["train"], opt["datasets"]["train"]
    adam = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert train["optim_g"] == adam and train["ema_decay"] == 0.999
    assert train["total_iter"] == (1_000_000 if stage == 1 else 400_000)
    assert train["pixel_opt"] == {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    assert (data["gt_size"], data["gt_usm"], data["use_rot"]) == (256, True, False)
    if stage == 1:
        assert opt["network_d"] is None
        return
    assert (data["l1_gt_usm"], data["percep_gt_usm"], data["gan_gt_usm"]) == (True, True, False)
    assert train["optim_d"] == adam
    assert train["gan_opt"] == {
        "type": "GANLoss",
        "gan_type": "vanilla",
        "real_label_val": 1.0,
        "fake_label_val": 0.0,
        "loss_weight": 0.1,
    }
    weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    assert train["perceptual_opt"]["layer_weights"] == weights
    assert opt["network_d"] == {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 64, "skip_connection": True}
