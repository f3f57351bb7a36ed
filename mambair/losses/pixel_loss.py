"""Losses that compare images pixel by pixel: L1, mean squared error and Charbonnier (as BasicSR defines them)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mambair.registry import LOSS_REGISTRY

REDUCTIONS = ("none", "mean", "sum")


class PixelLoss(nn.Module):
    """A weighted mean (or sum) of a per-pixel error; subclasses say which.

    Args:
        loss_weight: factor of the result.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, found {reduction!r}")
        self.loss_weight = loss_weight
        self.reduction = reduction

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The error of every element, in the shape of the inputs."""
        raise NotImplementedError

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compare two tensors of the same shape.

        Args:
            prediction: [B, C, H, W], any float dtype; the gradient flows here.
            target: [B, C, H, W].
            weight: element weights that broadcast to [B, C, H, W]. With "mean" the result is the weighted mean:
                the weighted errors' sum over the weights' sum.

        Returns:
            A scalar, or [B, C, H, W] with reduction "none".

        Raises:
            ValueError: the shapes differ (broadcasting would hide a wrong crop).
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction and target must have one shape, found {list(prediction.shape)} and {list(target.shape)}; "
                "does `scale` of the data set agree with the network's upscale?"
            )
        error = self.error(prediction, target)
        if weight is not None:
            error = error * weight
        if self.reduction == "none":
            return self.loss_weight * error
        if self.reduction == "sum":
            return self.loss_weight * error.sum()
        if weight is not None:
            return self.loss_weight * error.sum() / weight.expand_as(error).sum()
        return self.loss_weight * error.mean()


@LOSS_REGISTRY.register()
class L1Loss(PixelLoss):
    """Mean absolute error."""

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """|prediction - target|."""
        return (prediction - target).abs()


@LOSS_REGISTRY.register()
class MSELoss(PixelLoss):
    """Mean squared error."""

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(prediction - target)^2."""
        return (prediction - target).square()


@LOSS_REGISTRY.register()
class CharbonnierLoss(PixelLoss):
    """A smooth L1: sqrt(difference^2 + eps), with eps not squared, the convention of BasicSR and of MambaIR's recipes.

    Args:
        loss_weight: factor of the result.
        reduction: "mean", "sum" or "none".
        eps: added under the root; the published denoising recipes use 1e-3.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean", eps: float = 1e-12) -> None:
        super().__init__(loss_weight, reduction)
        if eps <= 0:
            raise ValueError(f"eps must be positive (the root has no gradient at zero), found {eps}")
        self.eps = eps

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """sqrt((prediction - target)^2 + eps)."""
        return torch.sqrt((prediction - target).square() + self.eps)
