"""SSIM and MS-SSIM as losses: against the metric, by properties, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mambair.losses import build_loss
from mambair.losses.structural_loss import gaussian_window
from mambair.metrics import calculate_metric


def pictures(size: tuple[int, int], noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and the same with noise, quantised to 8 bits."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    noisy = smooth + noise * torch.randn(1, 3, *size, generator=generator)
    return (smooth.clamp(0, 1) * 255).round() / 255, (noisy.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("size", [(32, 32), (33, 21)], ids=["even", "odd"])
def test_ssim_is_the_metric(size: tuple[int, int]) -> None:
    target, prediction = pictures(size)
    as_bytes = [
        (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)[..., ::-1] for image in (prediction, target)
    ]
    metric = calculate_metric(*as_bytes, {"type": "calculate_ssim", "crop_border": 0})
    loss = build_loss({"type": "SSIMLoss"})(prediction, target)
    # float32 against float64: variances are differences of nearly equal numbers
    assert 1 - loss.item() == pytest.approx(metric, abs=1e-4)


@pytest.mark.parametrize("opt", [{"type": "SSIMLoss"}, {"type": "MSSSIMLoss", "scale_weights": (0.3, 0.7)}], ids=str)
def test_zero_for_equal_pictures_and_rising_with_noise(opt: dict) -> None:
    loss = build_loss(opt)
    target, little = pictures((48, 40), 0.05)
    _, much = pictures((48, 40), 0.3)
    assert loss(target, target).item() == pytest.approx(0, abs=1e-5)
    assert 0 < loss(little, target) < loss(much, target)


def test_one_scale_of_ms_ssim_is_ssim() -> None:
    target, prediction = pictures((24, 24))
    one = build_loss({"type": "MSSSIMLoss", "scale_weights": [2.0]})(prediction, target)
    torch.testing.assert_close(one, build_loss({"type": "SSIMLoss"})(prediction, target))


def test_gradient_is_finite_for_opposite_pictures() -> None:
    target, _ = pictures((48, 48))
    prediction = (1 - target).requires_grad_()
    build_loss({"type": "MSSSIMLoss", "scale_weights": (0.3, 0.7)})(prediction, target).backward()
    assert bool(torch.isfinite(prediction.grad).all())


def test_window_is_symmetric_and_sums_to_one() -> None:
    window = gaussian_window()
    assert torch.equal(window, window.flip(0)) and window.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("opt", "least"), [({"type": "SSIMLoss"}, 11), ({"type": "MSSSIMLoss"}, 176)], ids=["SSIM", "MS-SSIM"]
)
def test_small_pictures_are_refused(opt: dict, least: int) -> None:
    with pytest.raises(ValueError, match=f"needs {least} x {least}"):
        build_loss(opt)(torch.zeros(1, 3, least, least - 1), torch.zeros(1, 3, least, least - 1))
