"""Options whose parts do not work together: found by building and trying them, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mambair.archs import build
from mambair.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, basicsr_installed
from mambair.train import main

Write = Callable[..., Path]
Changes = list[tuple[str, str]]
Refused = Callable[..., str]

needs_basicsr = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")

ARGUMENTS: dict[str, Any] = {"upscale": 4, "embed_dim": 8, "d_state": 2, "mlp_ratio": 1.2}
ARGUMENTS |= {"depths": [1], "upsampler": "pixelshuffledirect"}
NETWORK = (
    "type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n  mlp_ratio: 1.2\n"
    "  upsampler: pixelshuffledirect"
)
EDSR = "type: EDSR\n  num_in_ch: {}\n  num_out_ch: {}\n  num_feat: 8\n  num_block: 1\n  upscale: {}"


class OnlyImages(torch.utils.data.Dataset):
    """A data set that gives other keys than a restoration reads."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(3, 4, 4), "label": index}


class FailingDataset(OnlyImages):
    def __init__(self, opt: dict[str, Any]) -> None:
        raise RuntimeError("the disk is somewhere else")


class FailingLoss(nn.Module):
    def forward(self, output: Tensor, gt: Tensor) -> Tensor:
        raise TypeError("no pictures, please")


def calculate_nothing(img: Any, img2: Any) -> float:
    """A metric that is never a number."""
    return float("nan")


@pytest.fixture
def own_parts() -> Iterator[None]:
    """Classes that are registered while a test runs."""
    registered = [(DATASET_REGISTRY, OnlyImages), (DATASET_REGISTRY, FailingDataset), (LOSS_REGISTRY, FailingLoss)]
    registered.append((METRIC_REGISTRY, calculate_nothing))
    for registry, part in registered:
        registry.register(part)
    yield
    for registry, part in registered:
        del registry._entries[part.__name__]


@pytest.fixture
def tried(workspace: Path, capsys: pytest.CaptureFixture[str], own_parts: None) -> Refused:
    """Train with a broken file, and check it: exit code 2 and one message, nothing written; returns the message."""
    for folder, last in (("sizes", "low"), ("torn", "torn")):
        (workspace / folder).mkdir()
        for name, height in (*((str(number), 40) for number in range(20)), (last, 8)):
            Image.fromarray(np.zeros((height, 40, 3), np.uint8)).save(workspace / folder / f"{name}.png")
    (workspace / "torn" / "torn.png").write_bytes(b"no picture")
    torch.manual_seed(1)
    weights = build("MambaIR", ARGUMENTS).state_dict()
    torch.save({"params": weights}, workspace / "fits.pth")
    torch.save({"params": weights | {"conv_first.bias": torch.full((8,), torch.nan)}}, workspace / "nan.pth")
    torch.save({"params": weights | {"conv_first.bias": torch.zeros(7)}}, workspace / "seven.pth")
    torch.save({"params": {"head.weight": torch.zeros(2)}}, workspace / "other.pth")

    def run(path: Path, *arguments: str) -> str:
        before = sorted(workspace.rglob("*"))
        messages = []
        for mode in ([], ["--check"]):
            assert main(["-opt", str(path), *arguments, *mode]) == 2
            assert sorted(workspace.rglob("*")) == before, "something was written"
            lines = capsys.readouterr().err.splitlines()
            messages.append("\n".join(line for line in lines if "images of the training" not in line))
        assert messages[0] == messages[1]
        return messages[0]

    return run


BROKEN: dict[str, tuple[Changes, str]] = {
    "grey images for a colour network": (
        [("gt_size: 16", "gt_size: 16\n    color: gray")],
        "11: datasets.train.color: found images of 1 channel(s); 3, as MambaIR takes, is right",
    ),
    "grey validation of a colour network": (
        [("type: BicubicDataset", "type: BicubicDataset\n    color: y")],
        "14: datasets.val.color: found images of 1 channel(s); 3, as MambaIR takes, is right",
    ),
    "a data set with other keys": (
        [("type: PairedImageDataset", "type: OnlyImages")],
        "6: datasets.train: OnlyImages gives image, label; RestorationModel reads lq and gt",
    ),
    "a validation set with other keys": (
        [("type: BicubicDataset", "type: OnlyImages")],
        "12: datasets.val: OnlyImages gives image, label; RestorationModel reads lq",
    ),
    "a data set that cannot be built": (
        [("type: BicubicDataset", "type: FailingDataset")],
        "12: datasets.val: RuntimeError: the disk is somewhere else (test_broken_together.py:",
    ),
    "a loss that raises": (
        [("type: L1Loss", "type: FailingLoss")],
        "2: model_type: the first training step fails: TypeError: no pictures, please (test_broken_together.py:",
    ),
    "a loss that needs larger patches": (
        [("type: L1Loss", "type: SSIMLoss"), ("gt_size: 16", "gt_size: 8")],
        "2: model_type: the first training step fails: the images are 8 x 8 pixels, this loss needs 11 x 11",
    ),
    "a network that divides by zero": (
        [("embed_dim: 8", "embed_dim: 8\n  img_range: 0.")],
        "15: network_g: the loss or its gradient is not finite in the first step, although the images are",
    ),
    "a folder below a file": (
        [("pretrain_network_g: ~", "experiments_root: gt/a.png/run")],
        "24: path.experiments_root: gt/a.png/run is no experiment's folder and not empty; name a new folder",
    ),
    "a folder with too long a name": (
        [("pretrain_network_g: ~", f"experiments_root: {'n' * 300}")],
        f"24: path.experiments_root: found '{'n' * 75} ...; names of at most 200 bytes are right",
    ),
    "steps that change nothing": (
        [("total_iter: 10", "total_iter: 10\n  grad_clip: 1e-300")],
        "25: train: the first step changed no weight: the learning rate or train.grad_clip is too small for them",
    ),
    "a rate that overflows at once": (
        [("lr: 1e-4", "lr: 1e+30")],
        "25: train: after one step the output is not finite; lower train.optim_g.lr, or set train.grad_clip",
    ),
    "a loss of many numbers": (
        [("type: L1Loss", "type: L1Loss\n    reduction: none")],
        "34: train.pixel_opt: the first training step fails: L1Loss gives a tensor [1, 3, 16, 16]; a tensor of no "
        "dimensions with a gradient is right",
    ),
    "weights that are an empty file": (
        [("pretrain_network_g: ~", "pretrain_network_g: weights.pth")],
        "24: path.pretrain_network_g: ",
    ),
    "weights that are a picture": (
        [("pretrain_network_g: ~", "pretrain_network_g: gt/a.png")],
        "24: path.pretrain_network_g: ",
    ),
    "weights with NaN": (
        [("pretrain_network_g: ~", "pretrain_network_g: nan.pth")],
        "24: path.pretrain_network_g: ",
    ),
    "weights of another width": (
        [("pretrain_network_g: ~", "pretrain_network_g: seven.pth")],
        "24: path.pretrain_network_g: the weights do not fit MambaIR:\n1 of another shape:\n  conv_first.bias",
    ),
    "weights of another network, wherever they fit": (
        [("pretrain_network_g: ~", "pretrain_network_g: other.pth\n  strict_load_g: false")],
        "24: path.pretrain_network_g: no weight of ",
    ),
    "a table of weights that is not there": (
        [("pretrain_network_g: ~", "pretrain_network_g: fits.pth\n  param_key_g: params_average")],
        "24: path.pretrain_network_g: ",
    ),
    "a border of more than half an image": (
        [("crop_border: 4", "crop_border: 8")],
        "39: val.metrics.psnr: a.png: img: must keep at least 1x1 pixels after cropping, found 16x16 with "
        "crop_border 8",
    ),
    "too few pixels for SSIM": (
        [("type: calculate_psnr", "type: calculate_ssim")],
        "39: val.metrics.psnr: a.png: img: must keep at least 11x11 pixels after cropping, found 16x16 with "
        "crop_border 4",
    ),
    "a border too large for one of many images": (
        [("type: BicubicDataset\n    dataroot_gt: gt", "type: BicubicDataset\n    dataroot_gt: sizes")],
        "39: val.metrics.psnr: low.png: img: must keep at least 1x1 pixels after cropping, found 8x40 with "
        "crop_border 4",
    ),
    "a set of which one of many files is no image": (
        [("type: BicubicDataset\n    dataroot_gt: gt", "type: BicubicDataset\n    dataroot_gt: torn")],
        "14: datasets.val.dataroot_gt: ",
    ),
    "a metric of the data set that is no number": (
        [("type: BicubicDataset", "type: BicubicDataset\n    metrics: {none: {type: calculate_nothing}}")],
        "14: datasets.val.metrics.none: a.png: calculate_nothing gives NaN, of 16 x 16 pixels",
    ),
    "a state that is none": (
        [("pretrain_network_g: ~", "resume_state: fits.pth")],
        "24: path.resume_state: ",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_parts_that_do_not_work_together_are_refused(
    write: Write, tried: Refused, changes: Changes, expected: str
) -> None:
    path = write(*changes)
    assert tried(path).startswith(f"{path}:{expected}")


REASONS = {
    "weights.pth": "weights.pth: the file is empty, not weights; download it again",
    "gt/a.png": "a.png: the file is a picture, not weights",
    "nan.pth": "conv_first.bias; a training that diverged writes such files, use an earlier one",
}


@pytest.mark.parametrize(("name", "reason"), REASONS.items(), ids=REASONS.keys())
def test_bad_weights_are_named_with_the_reason(write: Write, tried: Refused, name: str, reason: str) -> None:
    assert reason in tried(write(("pretrain_network_g: ~", f"pretrain_network_g: {name}")))


OTHERS = {
    "another optimiser": (
        ["train:optim_g={type: SGD, lr: 0.001}"],
        "the training state is of another optimiser than SGD of train.optim_g",
    ),
    "another network": (["network_g:embed_dim=12"], "2.state: the weights do not fit MambaIR:"),
}


@pytest.mark.parametrize("by_name", [True, False], ids=["named", "auto_resume"])
@pytest.mark.parametrize(("changes", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_a_state_of_other_options_is_refused(
    write: Write, tried: Refused, workspace: Path, changes: list[str], reason: str, by_name: bool
) -> None:
    path = write(("val_freq: 5", "val_freq: 10"))
    assert main(["-opt", str(path), "--force_yml", "train:total_iter=2", "train:scheduler=~"]) == 0
    changes = ["train:total_iter=4", "train:scheduler=~", *changes]
    resume = "path:resume_state=experiments/small/training_states/2.state" if by_name else ""
    arguments = ["--force_yml", *changes, *([resume] if by_name else [])]
    if by_name:
        message = tried(path, *arguments)
        assert message.startswith(f"--force_yml {resume}: path.resume_state: ") and reason in message
    else:
        before = sorted(workspace.rglob("*"))
        assert main(["-opt", str(path), "--auto_resume", *arguments]) == 2
        assert sorted(workspace.rglob("*")) == before


THEIRS: dict[str, tuple[Changes, str]] = {
    "a network of grey images": (
        [(NETWORK, EDSR.format(1, 1, 4))],
        "6: datasets.train.color: found images of 3 channel(s); 1, as EDSR takes, is right",
    ),
    "without schedule": (
        [
            ("model_type: RestorationModel", "model_type: basicsr/SRModel"),
            ("scheduler:\n    type: MultiStepLR\n    milestones: [5]", "scheduler: ~"),
        ],
        "31: train.scheduler: found none; models of basicsr need one of MultiStepLR, MultiStepRestartLR, ",
    ),
    "without discriminator": (
        [("model_type: RestorationModel", "model_type: basicsr/SRGANModel")],
        "2: model_type: the key 'network_d' is missing (srgan_model.py:",
    ),
    "their optimiser": (
        [("model_type: RestorationModel", "model_type: basicsr/SRModel"), ("type: Adam", "type: AdamW")],
        "2: model_type: NotImplementedError: optimizer AdamW is not supperted yet. (base_model.py:",
    ),
    "their model, bad weights": (
        [
            ("model_type: RestorationModel", "model_type: basicsr/SRModel"),
            ("pretrain_network_g: ~", "pretrain_network_g: nan.pth"),
        ],
        "24: path.pretrain_network_g: ",
    ),
    "their data set without what it reads": (
        [("type: PairedImageDataset", "type: basicsr/PairedImageDataset")],
        "6: datasets.train: the key 'io_backend' is missing (paired_image_dataset.py:",
    ),
    "their metric on nothing": (
        [("type: calculate_psnr\n      crop_border: 4", "type: basicsr/calculate_psnr\n      crop_border: 8")],
        "39: val.metrics.psnr: a.png: basicsr/calculate_psnr gives NaN, of 16 x 16 pixels",
    ),
}


@needs_basicsr
@pytest.mark.parametrize(("changes", "expected"), THEIRS.values(), ids=THEIRS.keys())
def test_parts_of_basicsr_that_do_not_work_together_are_refused(
    write: Write, tried: Refused, changes: Changes, expected: str
) -> None:
    path = write(*changes)
    assert tried(path).startswith(f"{path}:{expected}")


def test_the_log_file_begins_with_what_was_said_before_there_was_a_folder(write: Write, workspace: Path) -> None:
    assert main(["-opt", str(write()), "--force_yml", "train:total_iter=1"]) == 0
    (log,) = (workspace / "experiments" / "small").glob("train_*.log")
    lines = [re.sub(r"^[-\d]+ [\d:,]+ ", "", line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert lines[0].startswith("INFO: torch ") and lines[1].startswith("INFO: batch: 2 images a step")
    assert sum("INFO: MambaIR with" in line for line in lines) == 1


def test_an_earlier_experiment_is_not_archived_by_options_that_fail(write: Write, workspace: Path) -> None:
    assert main(["-opt", str(write()), "--force_yml", "train:total_iter=1"]) == 0
    before = sorted(workspace.rglob("*"))
    assert main(["-opt", str(write(("gt_size: 16", "gt_size: 16\n    color: gray")))]) == 2
    assert sorted(workspace.rglob("*")) == before
