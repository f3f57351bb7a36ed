"""Applying drawn steps to images: one function for a worker with one image and for a batch on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mambair.data.degradations.compression import Compression, compress, compress_on_device
from mambair.data.degradations.kernels import GaussianBlur, SincBlur, blur
from mambair.data.degradations.noise import Noise, add_noise
from mambair.data.degradations.resize import Resize, resize

Step = GaussianBlur | SincBlur | Resize | Noise | Compression
Steps = tuple[Step | None, ...]
"""The steps of one image in order; None stands where another image of the recipe may have one."""


def degrade(images: Tensor, recipes: Sequence[Steps], *, files: bool = True) -> Tensor:
    """Apply to each image its own steps.

    All images take their first step, then all their second; those whose step is alike (same kind, same size) are
    computed as one batch. An image's result depends on its own steps alone.

    Args:
        images: [B, C, H, W], float in [0, 1], C 1 or 3.
        recipes: B of them, equally long, ending at one size.
        files: compress JPEG through Pillow, as files are; False computes JPEG on the device of ``images``.

    Returns:
        [B, C, h, w] in [0, 1], rounded to 8 bits.

    Raises:
        ValueError: the recipes do not fit the images or each other.
    """
    if len(recipes) != len(images) or len({len(recipe) for recipe in recipes}) != 1:
        raise ValueError(
            f"recipes: expected {len(images)} of one length, got lengths {[len(each) for each in recipes]}"
        )
    current = list(images.split(1))
    for steps in zip(*recipes, strict=True):
        groups: dict[Any, list[int]] = {}
        for index, step in enumerate(steps):
            if step is not None:
                groups.setdefault((current[index].shape, _alike(step)), []).append(index)
        for members in groups.values():
            result = _apply(
                torch.cat([current[index] for index in members]), [steps[index] for index in members], files
            )
            for index, image in zip(members, result.split(1), strict=True):
                current[index] = image
    return (torch.cat(current).clamp(0, 1) * 255).round() / 255


def _alike(step: Step) -> Any:
    """What steps must share to be computed together."""
    if isinstance(step, Resize):
        return step
    if isinstance(step, Compression):
        return Compression, step.subsampling
    return Noise if isinstance(step, Noise) else GaussianBlur


def _apply(images: Tensor, steps: Sequence[Any], files: bool) -> Tensor:
    first = steps[0]
    if isinstance(first, Resize):
        return resize(images, first)
    if isinstance(first, Noise):
        return add_noise(images, steps)
    if isinstance(first, Compression):
        return compress(images, steps) if files else compress_on_device(images, steps)
    return blur(images, steps)
