"""Where layers may take the fused path of ``mambair.ops.fused``: they must be exactly what their code says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mambair.ops import fused, torch_private

_TORCH_MODULES = frozenset(
    {nn.Linear, nn.Conv2d, nn.LayerNorm, nn.SiLU, nn.GELU, nn.ReLU, nn.Sigmoid, nn.Identity, nn.Dropout, nn.Sequential}
    | {nn.AdaptiveAvgPool2d}
)


def runs(layer: nn.Module, x: Tensor) -> bool:
    """Whether the fused path gives for x what the layer's own code would.

    Not while it trains, and not where someone listens to a module in it (hooks) or has changed one: a subclass or a
    parametrisation of a torch module, other dtypes, a layer norm without weights.
    """
    if fused.why_not(x) is not None or torch_private.has_global_hooks():
        return False
    return all(_is_plain(part) for part in layer.modules())


def _is_plain(part: nn.Module) -> bool:
    kind = type(part)
    if part.training or part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__:
        return False
    if kind not in _TORCH_MODULES and not kind.__module__.startswith("mambair."):
        return False
    if isinstance(part, nn.LayerNorm) and (part.bias is None or len(part.normalized_shape) != 1):
        return False
    return all(weight is None or weight.dtype == torch.float32 for weight in part._parameters.values())
