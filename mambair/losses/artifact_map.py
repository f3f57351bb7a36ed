"""Where adversarial training invents detail: the pixel weights of the LDL loss (Liang et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_WINDOW = 7


def artifact_weights(gt: Tensor, output: Tensor, steadier: Tensor) -> Tensor:
    """Weigh each pixel by how likely its detail is an artifact.

    The weight is the local variance of the residual's sum over channels in windows of 7 x 7, times the fifth root of
    the variance over the whole image (equations 3 and 4 of the paper). It is zero where the averaged network is further
    from the ground truth than the trained one: there, training reduces the error (equation 5).

    Args:
        gt: ground truth [B, C, H, W].
        output: of the network in training, [B, C, H, W].
        steadier: of the network with averaged weights, [B, C, H, W].

    Returns:
        [B, 1, H, W], without gradient.
    """
    with torch.no_grad():
        residual = (gt - output).abs().sum(1, keepdim=True)
        averaged = (gt - steadier).abs().sum(1, keepdim=True)
        weights = local_variance(residual) * residual.flatten(1).var(1).pow(0.2).view(-1, 1, 1, 1)
        return weights.masked_fill(residual < averaged, 0.0)


def local_variance(image: Tensor) -> Tensor:
    """The unbiased variance in a window of 7 x 7 around each pixel of [B, 1, H, W], with reflected borders."""
    border = _WINDOW // 2
    padded = functional.pad(image, (border, border, border, border), mode="reflect")
    windows = padded.unfold(2, _WINDOW, 1).unfold(3, _WINDOW, 1)  # [B, 1, H, W, 7, 7]
    return windows.flatten(-2).var(-1)
