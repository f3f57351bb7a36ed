"""The perceptual loss with random VGG19 weights: layout against torchvision, formula, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mambair.losses import build_loss
from mambair.losses.perceptual_loss import VGG19_FILE, VGGFeatures, gram_matrix
from mambair.weights.checkpoint import CheckpointError

LAYERS = {"conv1_2": 0.5, "conv2_1": 2.0}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "vgg19.pth"
    torch.save(VGGFeatures(("conv2_2",)).state_dict(), path)
    return path


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 12, 10, generator=generator), torch.rand(2, 3, 12, 10, generator=generator)


def test_layout_is_torchvision_s() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = models.vgg19(weights=None).features.state_dict()
        ours = VGGFeatures(("conv5_4",)).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        f"features.{name}": value.shape for name, value in theirs.items()
    }


def test_value_by_hand(weights: Path) -> None:
    prediction, target = images()
    loss = build_loss({"type": "PerceptualLoss", "layer_weights": LAYERS, "weights": weights, "style_weight": 3.0})
    ours, theirs = (loss.vgg((image - loss.mean) / loss.std) for image in (prediction, target))
    expected = sum(
        weight
        * (
            (ours[name] - theirs[name]).abs().mean()
            + 3 * (gram_matrix(ours[name]) - gram_matrix(theirs[name])).abs().mean()
        )
        for name, weight in LAYERS.items()
    )
    torch.testing.assert_close(loss(prediction, target), expected)


@pytest.mark.parametrize("criterion", ["l2", "fro"])
def test_other_distances(weights: Path, criterion: str) -> None:
    prediction, target = images()
    opt = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 0.5}, "weights": weights, "criterion": criterion}
    loss = build_loss(opt)
    ours, theirs = (loss.vgg((image - loss.mean) / loss.std)["conv1_2"] for image in (prediction, target))
    squares = (ours - theirs).square()
    expected = 0.5 * (squares.mean() if criterion == "l2" else squares.sum().sqrt())
    torch.testing.assert_close(loss(prediction, target), expected)


@pytest.mark.usefixtures("with_vgg19")
def test_weights_in_torch_s_cache_are_found() -> None:
    opt = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}}
    images_ = images()
    assert build_loss(opt)(*images_) > 0


@pytest.mark.parametrize("named", [{}, {"weights": "vgg19"}], ids=["default", "by name"])
def test_weights_in_our_own_cache_are_found(
    named: dict[str, str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MAMBAIR_HOME", str(tmp_path / "home"))
    opt = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}, **named}
    with pytest.raises(CheckpointError) as refused:
        build_loss(opt)
    for expected in (str(tmp_path / "torch"), str(tmp_path / "home"), "download.pytorch.org/models/vgg19-dcbb9e9d.pth"):
        assert expected in str(refused.value)
    (tmp_path / "home/weights").mkdir(parents=True)
    weights.rename(tmp_path / "home/weights" / VGG19_FILE)
    build_loss(opt)


def test_the_gradient_reaches_the_picture_and_not_the_features(weights: Path) -> None:
    prediction, target = images()
    loss = build_loss({"type": "PerceptualLoss", "layer_weights": LAYERS, "weights": weights})
    loss(prediction.requires_grad_(), target).backward()
    assert prediction.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layer_weights": {"conv9_1": 1.0}}, ValueError, "conv1_1, conv1_2.*found conv9_1"),
        ({"perceptual_weight": 0.0}, ValueError, "both zero"),
        ({"vgg_type": "vgg16"}, ValueError, "vgg_type must be vgg19, got 'vgg16'"),
        ({"criterion": "l3"}, ValueError, "criterion must be one of l1, l2, fro, got 'l3'"),
        ({"weights": "nowhere.pth"}, CheckpointError, "nowhere.pth: no such file.*vgg19-dcbb9e9d.pth"),
        ({"layer_weights": {"conv4_1": 1.0}}, CheckpointError, "is not VGG19: features.10.weight"),
    ],
    ids=["layer", "no factor", "network", "criterion", "no file", "other weights"],
)
def test_what_is_refused(weights: Path, change: dict, error: type[Exception], text: str) -> None:
    opt = {"type": "PerceptualLoss", "layer_weights": LAYERS, "weights": weights, **change}
    with pytest.raises(error, match=text):
        build_loss(opt)
