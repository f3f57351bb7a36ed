"""Blur kernels and blurring.

B: batch, C: channels, H, W: height and width, K: side of a kernel (odd).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KERNEL_KINDS: tuple[str, ...] = get_args(KernelKind)

_SMALLEST_SIGMA = 1e-6  # narrower kernels are a single pixel at any rate
# kernels are padded to this side at least, so that a result does not depend on what else is in the batch
_SIDE = 21
_FFT_MULTIPLE = 16  # sizes with few large prime factors are transformed faster


@dataclass(frozen=True)
class GaussianBlur:
    """A blur with a Gaussian-like kernel (Real-ESRGAN, section 3.2).

    With the squared Mahalanobis distance q, the kernel is exp(-q / 2), generalized exp(-q^beta / 2), and plateau
    1 / (1 + q^beta).

    Attributes:
        kind: one of ``KERNEL_KINDS``.
        size: side of the kernel in pixels, odd.
        sigma_x, sigma_y: standard deviations in pixels, >= 0, along the axes turned by ``angle``.
        angle: in radians.
        beta: shape of generalized and plateau kernels, > 0.
    """

    kind: str
    size: int
    sigma_x: float
    sigma_y: float
    angle: float = 0.0
    beta: float = 1.0

    def kernel(self) -> NDArray[np.float64]:
        """The kernel [size, size], which sums to 1."""
        x, y = _grid(self.size)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        along = (cosine * x + sine * y) / max(self.sigma_x, _SMALLEST_SIGMA)
        across = (cosine * y - sine * x) / max(self.sigma_y, _SMALLEST_SIGMA)
        distance = along**2 + across**2
        if self.kind.startswith("plateau"):
            kernel = 1 / (1 + distance**self.beta)
        else:
            beta = self.beta if self.kind.startswith("generalized") else 1.0
            kernel = np.exp(-(distance**beta) / 2)
        return kernel / kernel.sum()

    def __str__(self) -> str:
        text = f"blur {self.kind} {self.size}x{self.size} sigma {self.sigma_x:.2f}"
        if self.kind.endswith("aniso"):
            text += f", {self.sigma_y:.2f} angle {math.degrees(self.angle):.0f}"
        return text + ("" if self.kind in ("iso", "aniso") else f" beta {self.beta:.2f}")


@dataclass(frozen=True)
class SincBlur:
    """An ideal low-pass filter, which leaves ringing at edges (Real-ESRGAN, section 3.4).

    Attributes:
        size: side of the kernel in pixels, odd.
        cutoff: cutoff frequency in radians per pixel, > 0; pi is the highest frequency of an image.
    """

    size: int
    cutoff: float

    def kernel(self) -> NDArray[np.float64]:
        """The kernel [size, size], which sums to 1."""
        radius = np.hypot(*_grid(self.size))
        safe = np.where(radius == 0, 1.0, radius)
        bessel = torch.special.bessel_j1(torch.from_numpy(self.cutoff * safe)).numpy()
        kernel = np.where(radius == 0, self.cutoff**2 / (4 * math.pi), self.cutoff * bessel / (2 * math.pi * safe))
        return kernel / kernel.sum()

    def __str__(self) -> str:
        return f"sinc {self.size}x{self.size} cutoff {self.cutoff / math.pi:.2f} pi"


def blur(images: Tensor, blurs: Sequence[GaussianBlur | SincBlur]) -> Tensor:
    """Blur each image with its own kernel; borders are reflected.

    Args:
        images: [B, C, H, W], float.
        blurs: B blurs, of any sizes.

    Returns:
        [B, C, H, W]. Sinc kernels overshoot, so values may leave the range of ``images``.
    """
    side = max(_SIDE, *(each.size for each in blurs))
    kernels = np.zeros((len(blurs), side, side), dtype=np.float32)
    for kernel, each in zip(kernels, blurs, strict=True):
        margin = (side - each.size) // 2
        kernel[margin : side - margin, margin : side - margin] = each.kernel()
    return convolved(images, torch.from_numpy(kernels).to(images))


def convolved(images: Tensor, kernels: Tensor) -> Tensor:
    """The correlation of images [B, C, H, W] with kernels [B or 1, K, K] over reflected borders, by FFT."""
    height, width = images.shape[-2:]
    margin = kernels.shape[-1] // 2
    rows, columns = (_reflected(length, margin, images.device) for length in (height, width))
    padded = images[..., rows, :][..., columns]
    size = [-(-length // _FFT_MULTIPLE) * _FFT_MULTIPLE for length in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernels.flip(-1, -2), s=size).unsqueeze(1)
    first = 2 * margin
    return torch.fft.irfft2(spectrum, s=size)[..., first : first + height, first : first + width]


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of each pixel of a kernel [size, size], from its centre."""
    steps = np.arange(size, dtype=np.float64) - size // 2
    return np.broadcast_to(steps, (size, size)), np.broadcast_to(steps[:, None], (size, size))


def _reflected(length: int, margin: int, device: torch.device) -> Tensor:
    """Indices of a line with ``margin`` reflected pixels at both ends, the end pixel not repeated; any length works."""
    period = max(2 * (length - 1), 1)
    place = torch.arange(-margin, length + margin, device=device) % period
    return torch.minimum(place, period - place) if length > 1 else torch.zeros_like(place)
