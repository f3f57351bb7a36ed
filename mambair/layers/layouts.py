"""Layers for maps in either layout: channels last [B, H, W, C] or channels first [B, C, H, W] (as VMamba has them).

A channels-first map is kept in channels-last memory format, so that changing the layout moves no data.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.tokens import as_image, as_tokens

NORMS = ("ln", "ln2d", "bn")  # "ln2d" and "bn" make a network channels first
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class AsImage(nn.Module):
    """[B, H, W, C] -> [B, C, H, W]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return as_image(tokens)


class AsTokens(nn.Module):
    """[B, C, H, W] -> [B, H, W, C]."""

    def forward(self, image: Tensor) -> Tensor:
        return as_tokens(image)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        return as_image(F.layer_norm(as_tokens(input), self.normalized_shape, self.weight, self.bias, self.eps))


def make_norm(name: str, dim: int) -> nn.Module:
    """The normalisation of ``dim`` channels: "ln" for channels last, "ln2d" or "bn" for channels first.

    Raises:
        ValueError: any other name.
    """
    if name == "ln":
        return nn.LayerNorm(dim)
    if name == "ln2d":
        return LayerNorm2d(dim)
    if name == "bn":
        return nn.BatchNorm2d(dim)
    raise ValueError(f"norm_layer must be one of {', '.join(map(repr, NORMS))}, got {name!r}")


def make_activation(name: str) -> nn.Module:
    """An activation by its lower-case name.

    Raises:
        ValueError: a name that is not in ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"an activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {name!r}")
    return ACTIVATIONS[name]()
