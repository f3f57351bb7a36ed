"""Gaussian and Poisson noise, in colour or the same on all channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LUMA = (0.2989, 0.5870, 0.1140)


@dataclass(frozen=True)
class Noise:
    """Noise of one image.

    Attributes:
        kind: ``gaussian`` or ``poisson``.
        amount: standard deviation in grey levels of 255; for Poisson noise a factor on the noise, 1 being that of as
            many photons per pixel as the image has grey levels (rounded up to a power of two).
        is_gray: the same noise on all channels.
        seed: of the noise, below 2^63.
    """

    kind: str
    amount: float
    is_gray: bool
    seed: int

    def __str__(self) -> str:
        unit = "sigma" if self.kind == "gaussian" else "scale"
        return f"{self.kind} noise {unit} {self.amount:.2f}{' gray' if self.is_gray else ''}"


def add_noise(images: Tensor, noises: Sequence[Noise]) -> Tensor:
    """Add its own noise to each image and clip to [0, 1]; nothing is rounded.

    The noise of an image depends on its ``Noise`` and the kind of device alone, not on the other images.

    Args:
        images: [B, C, H, W], float.
        noises: B of them.

    Returns:
        [B, C, H, W] in [0, 1].
    """
    noisy = [image + _noise(image, noise) for image, noise in zip(images, noises, strict=True)]
    return torch.stack(noisy).clamp(0, 1)


def _noise(image: Tensor, noise: Noise) -> Tensor:
    """Noise [C or 1, H, W] for an image [C, H, W]."""
    generator = torch.Generator(image.device).manual_seed(noise.seed)
    is_gray = noise.is_gray and len(image) == 3
    if noise.kind == "gaussian":
        shape = (1 if is_gray else len(image), *image.shape[1:])
        return torch.randn(shape, generator=generator, device=image.device) * (noise.amount / 255)
    signal = _luma(image) if is_gray else image
    levels = (signal.clamp(0, 1) * 255).round()
    distinct = int((torch.bincount(levels.flatten().long(), minlength=256) > 0).sum())
    photons = 2 ** (distinct - 1).bit_length()
    signal = levels / 255
    return (torch.poisson(signal * photons, generator=generator) / photons - signal) * noise.amount


def _luma(image: Tensor) -> Tensor:
    weights = image.new_tensor(_LUMA).view(3, 1, 1)
    return (image * weights).sum(0, keepdim=True)
