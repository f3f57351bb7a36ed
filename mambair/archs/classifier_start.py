"""Restoration networks that start from the weights of a classification network with the same body."""

from __future__ import annotations

import re

import torch
from torch import nn

from mambair.archs.detectors import Weights

SHOWN = 8  # names that are written out


def copy_body(net: nn.Module, weights: Weights, body: re.Pattern[str]) -> None:
    """Copy the tensors of ``net`` whose names match ``body`` from ``weights``, where they have the same names.

    Raises:
        ValueError: one of them is missing or has another shape, then nothing is copied.
    """
    needed = {name: tensor for name, tensor in net.state_dict().items() if body.match(name)}
    unfit = [
        f"{name} {list(tensor.shape)} (the weights have {list(weights[name].shape) if name in weights else 'none'})"
        for name, tensor in needed.items()
        if name not in weights or weights[name].shape != tensor.shape
    ]
    if unfit:
        raise ValueError(
            f"the weights do not have this network's body, {len(unfit)} tensors do not fit: {', '.join(unfit[:SHOWN])}"
        )
    with torch.no_grad():
        for name, tensor in needed.items():
            tensor.copy_(weights[name])
