"""The frequency loss against two transforms written out, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from mambair.losses import build_loss


@pytest.mark.parametrize("size", [(8, 8), (7, 5)], ids=["even", "odd"])
def test_value_is_the_mean_over_both_parts_of_both_spectra(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    one, other = torch.rand(2, 3, *size, generator=generator), torch.rand(2, 3, *size, generator=generator)
    spectra = [torch.fft.rfft2(image.double()) for image in (one, other)]
    real, imaginary = (spectra[0] - spectra[1]).real.abs(), (spectra[0] - spectra[1]).imag.abs()
    expected = 0.05 * (real.mean() + imaginary.mean()) / 2
    found = build_loss({"type": "FFTLoss", "loss_weight": 0.05})(one, other)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_equal_images_cost_nothing_and_have_a_finite_gradient() -> None:
    image = torch.rand(1, 3, 6, 6, requires_grad=True)
    loss = build_loss({"type": "FFTLoss"})(image, image.detach())
    loss.backward()
    assert loss == 0 and bool(torch.isfinite(image.grad).all())


def test_norm_is_checked() -> None:
    with pytest.raises(ValueError, match="one of backward, ortho, forward, found 'none'"):
        build_loss({"type": "FFTLoss", "norm": "none"})
