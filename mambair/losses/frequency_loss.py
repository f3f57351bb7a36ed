"""A loss in the frequency domain: pictures that agree in their spectra agree in texture (Cho et al., ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mambair.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class FFTLoss(nn.Module):
    """Mean absolute difference of the two-dimensional spectra, real and imaginary parts taken apart.

    Args:
        loss_weight: factor of the result.
        norm: normalisation of the transform: "backward" (none, the published form), "ortho" or "forward".

    Raises:
        ValueError: another norm.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, norm: str = "backward") -> None:
        super().__init__()
        if norm not in ("backward", "ortho", "forward"):
            raise ValueError(f"norm must be one of backward, ortho, forward, found {norm!r}")
        self.loss_weight = loss_weight
        self.norm = norm

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar."""
        # the transform is linear: one transform of the difference is the difference of two
        spectrum = torch.fft.rfft2((prediction - target).float(), norm=self.norm)
        return self.loss_weight * torch.view_as_real(spectrum).abs().mean()


@LOSS_REGISTRY.register()
class FocalFrequencyLoss(nn.Module):
    """Squared difference of the spectra; frequencies that are far off count more (Jiang et al., ICCV 2021).

    The weight of a frequency is |difference|^alpha, divided by its largest value in the channel, without gradient.

    Args:
        loss_weight: factor of the result.
        alpha: exponent of the weight; 0 weighs all frequencies alike.

    Raises:
        ValueError: a negative ``alpha``.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, alpha: float = 1.0) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"alpha must be 0 or more, got {alpha}")
        self.loss_weight = loss_weight
        self.alpha = alpha

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar."""
        spectrum = torch.view_as_real(torch.fft.fft2((prediction - target).float(), norm="ortho"))
        squares = spectrum.square().sum(-1)
        with torch.no_grad():
            weight = squares.sqrt() ** self.alpha
            weight = (weight / weight.amax((-2, -1), keepdim=True).clamp_min(1e-12)).clamp(0, 1)
        return self.loss_weight * (weight * squares).mean()
