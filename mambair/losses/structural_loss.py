"""Structural similarity as a loss: 1 - SSIM (Wang et al., 2004) and 1 - MS-SSIM (Wang et al., 2003)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.registry import LOSS_REGISTRY

WINDOW, SIGMA = 11, 1.5
STABILISERS = (0.01**2, 0.03**2)  # (K1 L)^2 and (K2 L)^2 of the papers, for images in [0, 1]
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian_window(size: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """[size] normalised Gaussian, the papers' weighting of a neighbourhood."""
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-(distance**2) / (2 * sigma**2))
    return (window / window.sum()).float()


def similarity(prediction: Tensor, target: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Means over pixels of SSIM and of its contrast-structure factor.

    Args:
        prediction, target: [B, C, H, W] float in [0, 1], H and W at least the window's size.
        window: [size], of the images' device.

    Returns:
        Two tensors [B, C].
    """
    channels, size = prediction.shape[1], window.numel()
    vertical = window.to(prediction).view(1, 1, size, 1).expand(channels, 1, size, 1)
    horizontal = vertical.transpose(2, 3)

    def blurred(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, vertical, groups=channels), horizontal, groups=channels)

    mean_p, mean_t = blurred(prediction), blurred(target)
    variance_p = blurred(prediction * prediction) - mean_p**2
    variance_t = blurred(target * target) - mean_t**2
    covariance = blurred(prediction * target) - mean_p * mean_t
    c1, c2 = STABILISERS
    structure = (2 * covariance + c2) / (variance_p + variance_t + c2)
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return (luminance * structure).mean(dim=(2, 3)), structure.mean(dim=(2, 3))


@LOSS_REGISTRY.register()
class SSIMLoss(nn.Module):
    """1 - SSIM of RGB images in [0, 1], with the 11 x 11 Gaussian window of the metric.

    Args:
        loss_weight: factor of the result.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.register_buffer("window", gaussian_window(), persistent=False)
        self.window: Tensor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar.

        Raises:
            ValueError: images smaller than the window.
        """
        require_size(prediction, WINDOW)
        ssim, _ = similarity(prediction.float(), target.float(), self.window)
        return self.loss_weight * (1 - ssim.mean())


@LOSS_REGISTRY.register()
class MSSSIMLoss(nn.Module):
    """1 - MS-SSIM: contrast and structure at five scales, luminance at the coarsest.

    Args:
        loss_weight: factor of the result.
        scale_weights: exponents from the finest scale to the coarsest; the papers' by default. Fewer scales allow
            smaller patches: n scales need 11 x 2^(n - 1) pixels; they are normalised to a sum of 1.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, scale_weights: tuple[float, ...] = SCALE_WEIGHTS) -> None:
        super().__init__()
        if not scale_weights or min(scale_weights) <= 0:
            raise ValueError(f"scale_weights must be positive numbers, found {list(scale_weights)}")
        self.loss_weight = loss_weight
        self.scale_weights = [weight / sum(scale_weights) for weight in scale_weights]
        self.register_buffer("window", gaussian_window(), persistent=False)
        self.window: Tensor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar.

        Raises:
            ValueError: images too small for so many scales.
        """
        require_size(prediction, WINDOW * 2 ** (len(self.scale_weights) - 1))
        prediction, target = prediction.float(), target.float()
        result = torch.ones((), device=prediction.device)
        for scale, weight in enumerate(self.scale_weights):
            if scale:
                prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
            ssim, structure = similarity(prediction, target, self.window)
            factor = ssim if scale == len(self.scale_weights) - 1 else structure
            # a negative similarity has no real power, and a zero no finite gradient
            result = result * factor.clamp_min(1e-6) ** weight
        return self.loss_weight * (1 - result.mean())


def require_size(image: Tensor, least: int) -> None:
    """Raise ValueError unless both sides of [B, C, H, W] have ``least`` pixels."""
    if min(image.shape[-2:]) < least:
        raise ValueError(
            f"the images are {image.shape[-2]} x {image.shape[-1]} pixels, this loss needs {least} x {least}; "
            "choose a larger gt_size, or fewer scale_weights"
        )


@LOSS_REGISTRY.register()
class MSSSIML1Loss(MSSSIMLoss):
    """alpha (1 - MS-SSIM) + (1 - alpha) L1 (Zhao et al., 2017); the mean of L1 stands for its Gaussian-weighted mean.

    Args:
        loss_weight: factor of the result.
        scale_weights: as of MSSSIMLoss.
        alpha: share of the structural part, 0 to 1.

    Raises:
        ValueError: an ``alpha`` outside of 0 to 1, or refused ``scale_weights``.
    """

    def __init__(
        self, loss_weight: float = 1.0, scale_weights: tuple[float, ...] = SCALE_WEIGHTS, alpha: float = 0.84
    ) -> None:
        super().__init__(loss_weight, scale_weights)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        self.alpha = alpha

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, C, H, W] with [B, C, H, W]; returns a scalar.

        Raises:
            ValueError: images too small for so many scales.
        """
        structure = super().forward(prediction, target)
        return self.alpha * structure + (1 - self.alpha) * self.loss_weight * F.l1_loss(prediction, target)
