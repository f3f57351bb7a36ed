"""Image quality measures, registered under BasicSR's names; importing this package fills METRIC_REGISTRY."""

from __future__ import annotations

from mambair.metrics.calculate import calculate_metric, needs_reference
from mambair.metrics.learned import calculate_dists, calculate_lpips
from mambair.metrics.niqe import NIQE_FIT, calculate_niqe
from mambair.metrics.psnr_ssim import SSIM_WINDOW, calculate_psnr, calculate_ssim

__all__ = [
    "NIQE_FIT",
    "SSIM_WINDOW",
    "calculate_dists",
    "calculate_lpips",
    "calculate_metric",
    "calculate_niqe",
    "calculate_psnr",
    "calculate_ssim",
    "needs_reference",
]
