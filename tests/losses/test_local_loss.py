"""Losses of small areas and of frequencies: values by hand, what they leave free, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mambair.losses import build_loss

OPTS = [
    {"type": "ConsistencyLoss", "patch_size": 4},
    {"type": "FocalFrequencyLoss"},
    {"type": "GradientVarianceLoss", "patch_size": 4},
    {"type": "MSSSIML1Loss", "scale_weights": [0.3, 0.7]},
]


def picture(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("opt", OPTS, ids=lambda opt: opt["type"])
@pytest.mark.parametrize("channels", [1, 3])
def test_zero_for_equal_pictures_and_a_finite_gradient(opt: dict[str, Any], channels: int) -> None:
    loss = build_loss(opt)
    target = picture(1, 2, channels, 26, 31)
    assert float(loss(target, target)) == pytest.approx(0, abs=1e-5)
    prediction = picture(2, 2, channels, 26, 31).requires_grad_()
    value = loss(prediction, target)
    value.backward()
    assert float(value) > 0 and bool(torch.isfinite(prediction.grad).all()) and bool(prediction.grad.abs().sum() > 0)
    double = build_loss({**opt, "loss_weight": 2.0})(prediction, target)
    torch.testing.assert_close(double, 2 * value)


def test_consistency_is_of_averages() -> None:
    target = torch.zeros(1, 1, 4, 8)
    prediction = torch.zeros(1, 1, 4, 8)
    prediction[..., :4] = torch.tensor([1.0, -1.0]).repeat(2)  # detail whose average is 0
    prediction[..., 4:] = 0.5
    loss = build_loss({"type": "ConsistencyLoss", "patch_size": 4})
    assert float(loss(prediction, target)) == pytest.approx(0.25)


def test_focal_frequency_of_one_wave() -> None:
    """One cosine of amplitude a has two coefficients a sqrt(HW) / 2 in the orthonormal transform, of weight 1."""
    columns = torch.arange(16) / 16
    wave = 0.3 * torch.cos(2 * torch.pi * 3 * columns).expand(1, 1, 8, 16)
    loss = build_loss({"type": "FocalFrequencyLoss"})
    expected = 2 * (0.3 * (8 * 16) ** 0.5 / 2) ** 2 / (8 * 16)
    assert float(loss(wave, torch.zeros_like(wave))) == pytest.approx(expected, rel=1e-5)


def test_focal_frequency_weighs_what_is_far_off() -> None:
    prediction, target = picture(1, 1, 1, 8, 8), picture(2, 1, 1, 8, 8)
    spectrum = torch.fft.fft2(prediction - target, norm="ortho").abs()
    expected = (spectrum / spectrum.max() * spectrum**2).mean()
    torch.testing.assert_close(build_loss({"type": "FocalFrequencyLoss"})(prediction, target), expected)
    plain = build_loss({"type": "FocalFrequencyLoss", "alpha": 0.0})(prediction, target)
    torch.testing.assert_close(plain, (prediction - target).square().mean())  # Parseval


def test_gradient_variance_by_hand() -> None:
    """A ramp has one gradient everywhere inside: the variance of inner squares is 0, that of steps is not."""
    ramp = torch.arange(24.0).expand(1, 1, 24, 24) / 24
    loss = build_loss({"type": "GradientVarianceLoss", "patch_size": 8})
    inner = loss._variances(ramp).reshape(2, 3, 3)[:, 1, 1]
    torch.testing.assert_close(inner, torch.zeros(2), atol=1e-10, rtol=0)
    steps = torch.zeros(1, 1, 24, 24)
    steps[..., 12:] = 1  # Sobel gives 4 at columns 11 and 12, of the eight columns 8 to 15
    across = loss._variances(steps).reshape(2, 3, 3)[1, 1, 1]
    values = torch.zeros(8, 8)
    values[:, 3:5] = 4
    torch.testing.assert_close(across, values.var())


@pytest.mark.parametrize(
    ("opt", "text"),
    [
        ({"type": "ConsistencyLoss", "patch_size": 0}, "patch_size must be 1 or more, got 0"),
        ({"type": "GradientVarianceLoss", "patch_size": 1}, "patch_size must be 2 or more, got 1"),
        ({"type": "FocalFrequencyLoss", "alpha": -1.0}, "alpha must be 0 or more, got -1.0"),
        ({"type": "MSSSIML1Loss", "alpha": 1.5}, "alpha must lie between 0 and 1, got 1.5"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_refused_arguments(opt: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build_loss(opt)
