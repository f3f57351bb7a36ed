"""What the parts of a training step must give: networks one tensor of images, losses one number to learn from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mambair.options.errors import SettingError


def images_of(net: nn.Module, given: Any) -> Tensor:
    """What a network gave, if that is a tensor of images.

    Raises:
        SettingError: it is not of shape [B, C, H, W].
    """
    if isinstance(given, Tensor) and given.dim() == 4:
        return given
    found = f"a tensor {list(given.shape)}" if isinstance(given, Tensor) else f"a value of type {type(given).__name__}"
    raise SettingError(("network_g",), f"{type(net).__name__} gives {found}; a tensor [B, C, H, W] is right")


def number_of(criterion: nn.Module, given: Any, block: str) -> Tensor:
    """What a loss of the block ``train.<block>`` gave, if that is one number that depends on the network.

    Raises:
        SettingError: it is something else.
    """
    found = None
    if not isinstance(given, Tensor):
        found = f"a value of type {type(given).__name__}"
    elif given.dim():
        found = f"a tensor {list(given.shape)}"
    elif torch.is_grad_enabled() and not given.requires_grad:
        found = "a number that does not depend on the network's weights"
    if found is None:
        return given
    name = type(criterion).__name__
    raise SettingError(("train", block), f"{name} gives {found}; a tensor of no dimensions with a gradient is right")
