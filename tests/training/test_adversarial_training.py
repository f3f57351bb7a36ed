"""Adversarial training from an option file: the shipped recipes run, and an interrupted run ends with equal weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mambair import load
from mambair.data.restoration_dataset import to_tensor
from mambair.images.files import list_images, read_rgb
from mambair.images.lazy_image import to_float
from mambair.images.resize import imresize
from mambair.losses import PerceptualLoss
from mambair.system import exit_codes
from mambair.train import main

pytestmark = pytest.mark.usefixtures("with_vgg19")
ON_EXAMPLES = [
    "num_gpu=0",
    "datasets:train:dataroot_gt=datasets/example/gt",
    "datasets:val:dataroot_gt=datasets/example/gt",
    "datasets:train:gt_size=32",
    "datasets:train:degraded_size=64",
    "datasets:train:total_batch_size=2",
    "datasets:train:num_worker_per_gpu=0",
    "logger:use_tb_logger=false",
    "logger:print_freq=10",
    "path:pretrain_network_g=~",
    "train:total_iter=20",
    "train:scheduler=~",
]
TINY = ["network_g:embed_dim=8", "network_g:depths=[1]", "network_g:d_state=2", "network_g:mlp_ratio=1.2"]
STAGE_2 = ["network_d:num_feat=4", "train:perceptual_opt:layer_weights={conv1_2: 1.0}"]


def train(repository: Path, name: str, *changes: str, resume: bool = False) -> int:
    option_file = repository / "options" / "train" / f"train_{name}.yml"
    arguments = ["-opt", str(option_file), "--force_yml", *ON_EXAMPLES, *TINY, *changes]
    return main([*arguments, "--auto_resume"] if resume else arguments)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "name",
    [
        "MambaIR_RealSR_x2",
        "MambaIR_small_RealSR_x4",
        pytest.param("MambaIR_RealSR_x4", marks=pytest.mark.slow),
        pytest.param("MambaIR_small_RealSR_x2", marks=pytest.mark.slow),
    ],
)
def test_recipes_run_twenty_iterations(
    repository: Path, name: str, stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = STAGE_2 if stage == 2 else []
    assert train(repository, f"{name}_stage{stage}", *changes) == exit_codes.DONE
    models = tmp_path / "experiments" / f"{name}_stage{stage}" / "models"
    labels = {path.name.split("_")[1] for path in models.glob("net_*_latest.pth")}
    assert labels == ({"g"} if stage == 1 else {"g", "d"})


def test_an_interrupted_training_ends_with_equal_weights(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight iterations at once, and four in a run that ends there, continued from its checkpoint."""
    found = []
    for folder, parts in (("whole", [8]), ("parts", [4, 8])):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        for total in parts:
            changes = [*STAGE_2, f"train:total_iter={total}", "logger:save_checkpoint_freq=4", "val:val_freq=100"]
            code = train(repository, "MambaIR_small_RealSR_x2_stage2", *changes, resume=total == 8)
            assert code == exit_codes.DONE
        models = Path("experiments") / "MambaIR_small_RealSR_x2_stage2" / "models"
        found.append([torch.load(models / f"net_{label}_8.pth", weights_only=True) for label in ("g", "d")])
        shutil.rmtree("experiments")
    for whole, parts in zip(*found, strict=True):
        for key in ("params", "params_ema") if "params_ema" in whole else ("params",):
            assert all(torch.equal(value, parts[key][name]) for name, value in whole[key].items())


@pytest.mark.slow
def test_a_discriminator_brings_pictures_nearer_to_the_features_of_real_ones(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 iterations against a discriminator, from a start with pixel loss: less distance of random features, which
    was not trained on (another layer is), and at most 1 dB less PSNR."""
    monkeypatch.chdir(tmp_path)
    name = "MambaIR_small_RealSR_x2"
    easy = ["datasets:train:preset=photo", "datasets:val:preset=photo", "train:ema_decay=0", "gt_usm=false"]
    assert train(repository, f"{name}_stage1", *easy, "train:total_iter=300", "train:optim_g:lr=3e-3") == 0
    start = Path("experiments") / f"{name}_stage1" / "models" / "net_g_latest.pth"
    second = [*STAGE_2, "l1_gt_usm=false", "percep_gt_usm=false", "train:optim_g:lr=1e-3", "train:optim_d:lr=1e-3"]
    second += ["train:total_iter=300", f"path:pretrain_network_g={start}", "path:param_key_g=params"]
    assert train(repository, f"{name}_stage2", *easy, *second) == 0
    end = Path("experiments") / f"{name}_stage2" / "models" / "net_g_latest.pth"
    before, after = (measured(repository, weights) for weights in (start, end))
    assert after["distance"] < before["distance"]
    assert after["psnr"] > before["psnr"] - 1


def measured(repository: Path, weights: Path) -> dict[str, float]:
    """Mean PSNR on the example validation images reduced by two, and distance of VGG features with random weights."""
    net = load(weights)
    distance = PerceptualLoss({"conv2_2": 1.0, "conv3_4": 1.0})
    found: dict[str, list[float]] = {"psnr": [], "distance": []}
    for path in list_images(repository / "datasets" / "example" / "val_gt"):
        pixels = read_rgb(path)
        height, width = (length // 2 * 2 for length in pixels.shape[:2])
        gt, lq = (to_tensor(to_float(image)) for image in (pixels, imresize(pixels[:height, :width], 0.5)))
        gt = gt[None, :, :height, :width]
        with torch.no_grad():
            output = net(lq[None]).clamp(0, 1)
            found["psnr"].append(float(-10 * (output - gt).square().mean().log10()))
            found["distance"].append(float(distance(output, gt)))
    return {key: sum(values) / len(values) for key, values in found.items()}
