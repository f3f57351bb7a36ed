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
