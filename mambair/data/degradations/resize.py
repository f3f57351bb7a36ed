"""Resizing as a degradation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import interpolate

ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)


@dataclass(frozen=True)
class Resize:
    """Resizing to a size.

    Attributes:
        mode: one of ``RESIZE_MODES``: the mean over the covered pixels, or interpolation with 2 or 4 taps per axis.
        height, width: of the result in pixels, >= 1.
        antialias: interpolate over as many more taps as the image is reduced; ``area`` always covers all pixels.
    """

    mode: str
    height: int
    width: int
    antialias: bool = False

    def __str__(self) -> str:
        return f"resize {self.mode} to {self.height}x{self.width}"


def resize(images: Tensor, step: Resize) -> Tensor:
    """Resize images [B, C, H, W] to [B, C, step.height, step.width]; both borders stay where they are.

    ``bicubic`` overshoots, so values may leave the range of ``images``.
    """
    size, antialias = (step.height, step.width), step.antialias and step.mode != "area"
    return interpolate(images, size=size, mode=step.mode, antialias=antialias)
