"""Losses of small areas: how sharp they are, and how bright and coloured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.registry import LOSS_REGISTRY

LUMA = (0.2126, 0.7152, 0.0722)
SOBEL = ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0))


@LOSS_REGISTRY.register()
class GradientVarianceLoss(nn.Module):
    """Difference of the gradients' variances in small squares, which blur lowers (Abrahamyan et al., ICASSP 2022).

    Args:
        loss_weight: factor of the result.
        patch_size: side of the squares, which do not overlap.

    Raises:
        ValueError: a ``patch_size`` below 2.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, patch_size: int = 8) -> None:
        super().__init__()
        if patch_size < 2:
            raise ValueError(f"patch_size must be 2 or more, got {patch_size}")
        self.loss_weight = loss_weight
        self.patch_size = patch_size
        vertical = torch.tensor(SOBEL)
        self.register_buffer("sobel", torch.stack([vertical, vertical.T]).unsqueeze(1), persistent=False)
        self.sobel: Tensor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, 1 or 3, H, W] with the same; returns a scalar: the mean square of the differences."""
        return self.loss_weight * F.mse_loss(self._variances(prediction), self._variances(target))

    def _variances(self, image: Tensor) -> Tensor:
        """[B, 2, squares] of the luma's vertical and horizontal gradient."""
        image = image.float()
        luma = image if image.shape[1] == 1 else (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        gradients = F.conv2d(luma, self.sobel, padding=1)
        squares = F.unfold(gradients, self.patch_size, stride=self.patch_size)
        return squares.unflatten(1, (2, -1)).var(2)


@LOSS_REGISTRY.register()
class ConsistencyLoss(nn.Module):
    """Mean absolute difference of the images' averages over small squares.

    It leaves fine detail free and holds brightness and colour, which drift in adversarial training.

    Args:
        loss_weight: factor of the result.
        patch_size: side of the squares, which do not overlap.

    Raises:
        ValueError: a ``patch_size`` below 1.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, patch_size: int = 8) -> None:
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"patch_size must be 1 or more, got {patch_size}")
        self.loss_weight = loss_weight
        self.patch_size = patch_size

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar."""
        return self.loss_weight * F.avg_pool2d((prediction - target).float(), self.patch_size).abs().mean()
