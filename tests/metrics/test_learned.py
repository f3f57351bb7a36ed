"""LPIPS and DISTS with random features: against torchmetrics, as metric and as loss, and without weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.losses import build_loss
from mambair.metrics import calculate_metric, learned
from mambair.system.errors import RequestError

pytest.importorskip("torchmetrics")
models = pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of torch with random weights; those that nothing uses share one number in memory."""
    folder = tmp_path_factory.mktemp("torch")
    checkpoints = folder / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.manual_seed(0)
    for net, build in {"squeeze": models.squeezenet1_1, "vgg": models.vgg16}.items():
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in build(weights=None).state_dict().items()}
        state = {}
        for name, shape in shapes.items():
            fan_in = max(1, int(np.prod(shape[1:])))
            used = name.startswith("features")
            state[name] = torch.randn(shape) * (2 / fan_in) ** 0.5 if used else torch.zeros(1).expand(shape)
        torch.save(state, checkpoints / learned.FILES[net])
    return folder


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCH_HOME", str(folder))
    yield
    learned._lpips.cache_clear()
    learned._dists.cache_clear()


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (48, 57, 3), dtype=np.uint8)
    noisy = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    return image, noisy


METRICS = [{"type": "calculate_lpips", "net": "squeeze"}, {"type": "calculate_dists"}]


@pytest.mark.parametrize("opt", METRICS, ids=lambda opt: opt["type"])
def test_conventions(opt: dict[str, Any]) -> None:
    image, noisy = images()
    opt = {**opt, "crop_border": 2, "better": "lower"}
    value = calculate_metric(noisy, image, opt)
    assert value > 0
    assert calculate_metric(image, image, opt) == pytest.approx(0, abs=1e-6)
    planes = [one.transpose(2, 0, 1) for one in (noisy, image)]
    assert calculate_metric(*planes, {**opt, "input_order": "CHW"}) == pytest.approx(value, abs=1e-7)
    cropped = [one[2:-2, 2:-2] for one in (noisy, image)]
    assert calculate_metric(*cropped, {**opt, "crop_border": 0}) == pytest.approx(value, abs=1e-7)
    wide = [one.astype(np.uint16) * 257 for one in (noisy, image)]
    assert calculate_metric(*wide, opt) == pytest.approx(value, rel=1e-4)
    grey = [one[..., :1].repeat(3, 2) for one in (noisy, image)]
    flat = [one[..., 0] for one in grey]
    assert calculate_metric(*flat, opt) == pytest.approx(calculate_metric(*grey, opt), abs=1e-7)


def test_values_are_torchmetrics_s() -> None:
    from torchmetrics.functional.image import deep_image_structure_and_texture_similarity as dists
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as lpips

    image, noisy = images()
    first, second = (
        torch.from_numpy(one[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255 for one in (noisy, image)
    )
    opt = {"crop_border": 0}
    expected = float(lpips(first, second, net_type="squeeze", normalize=True))
    assert calculate_metric(noisy, image, {**METRICS[0], **opt}) == pytest.approx(expected, rel=1e-5)
    assert float(build_loss({"type": "LPIPSLoss", "net": "squeeze"})(first, second)) == pytest.approx(
        expected, rel=1e-5
    )
    expected = float(dists(first, second))
    assert calculate_metric(noisy, image, {**METRICS[1], **opt}) == pytest.approx(expected, rel=1e-5)
    loss = build_loss({"type": "DISTSLoss", "loss_weight": 2.0})(first, second)
    assert float(loss) == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize("opt", [{"type": "LPIPSLoss", "net": "squeeze"}, {"type": "DISTSLoss"}], ids=str)
def test_a_loss_trains_the_picture_and_not_its_network(opt: dict[str, Any]) -> None:
    loss = build_loss(opt)
    target = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    prediction = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(2)).requires_grad_()
    before = float(loss(prediction, target))
    loss.train()
    loss(prediction, target).backward()
    assert bool(torch.isfinite(prediction.grad).all())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    step = 1e-2 / float(prediction.grad.abs().max())
    assert float(loss(prediction.detach() - step * prediction.grad, target)) < before


def test_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    text = "squeezenet1_1-b8a52dc0.pth: no such file; download https://download.pytorch.org/models/squeezenet1_1"
    with pytest.raises(RequestError, match=text):
        build_loss({"type": "LPIPSLoss", "net": "squeeze"})


def test_without_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.lpip", None)
    with pytest.raises(RequestError, match=r"pip install 'mambair\[perceptual\]'"):
        build_loss({"type": "LPIPSLoss"})


def test_an_unknown_network_and_small_images() -> None:
    with pytest.raises(ValueError, match="net must be one of alex, squeeze, vgg, got 'resnet'"):
        learned.lpips_network("resnet")  # type: ignore[arg-type]
    small = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 35x35 pixels"):
        calculate_metric(small, small, {**METRICS[0], "crop_border": 0})


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("executed"), "x")


def test_the_cache_of_torch_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / learned.FILES["squeeze"]
    file.parent.mkdir(parents=True)
    torch.save({"a": Runs()}, file)
    with pytest.raises(learned.RequestError, match=r"cannot be used .*delete it and download it again"):
        learned.lpips_network("squeeze")
    assert not (tmp_path / "executed").exists() and learned.TENSORS_ONLY not in os.environ
