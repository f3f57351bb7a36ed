"""Unsharp masking of training targets, as Real-ESRGAN sharpens its ground truth."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mambair.data.degradations.kernels import GaussianBlur, convolved

_SIZE = 51
_SIGMA = 0.3 * ((_SIZE - 1) / 2 - 1) + 0.8  # OpenCV's rule for a kernel of that size
_WEIGHT = 0.5
_THRESHOLD = 10 / 255


def sharpened(images: Tensor) -> Tensor:
    """Unsharp masking with a soft mask: only where the image differs from its blur by more than 10 grey levels.

    Args:
        images: [B, C, H, W], float in [0, 1].

    Returns:
        [B, C, H, W] in [0, 1].
    """
    kernel = _kernel().to(images)
    residual = images - convolved(images, kernel)
    mask = convolved((residual.abs() > _THRESHOLD).to(images), kernel).clamp(0, 1)
    sharp = (images + _WEIGHT * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * images


@lru_cache(maxsize=1)
def _kernel() -> Tensor:
    return torch.from_numpy(GaussianBlur("iso", _SIZE, _SIGMA, _SIGMA).kernel()).unsqueeze(0)
