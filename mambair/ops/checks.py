"""Argument checks shared by the public scans: cheap, and each message gives the argument, the rule and the finding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_tensors(
    lead_name: str, lead: Tensor, wanted: Mapping[str, tuple[Tensor | None, tuple[int, ...], str]]
) -> None:
    """Compare dtype, device and shape of every tensor in ``wanted`` (tensor, shape, rule) with those of ``lead``."""
    check_floating(lead_name, lead)
    for name, (tensor, shape, rule) in wanted.items():
        if tensor is None:
            continue
        check_floating(name, tensor)
        if tensor.device != lead.device:
            raise ValueError(f"{name} must be on {lead.device} as {lead_name}; found {tensor.device}")
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {rule} = {list(shape)}; found {list(tensor.shape)}")


def check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{name} must be float32, bfloat16, float16 or float64; found {tensor.dtype}")


def check_dimensions(name: str, tensor: Tensor, layout: str) -> None:
    """``layout`` as in "[B, L, D]"."""
    count = layout.count(",") + 1
    if tensor.dim() != count:
        raise ValueError(f"{name} must have the {count} dimensions {layout}; found {list(tensor.shape)}")
