"""The fused layers: steps of a layer that the native library runs together, for inference on a CPU.

The layers' torch code is their reference, and runs wherever a rule of ``RULES`` speaks against them.
``MAMBAIR_FUSED=0`` turns them off.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mambair.ops import backends, native, operators, torch_private  # noqa: F401, operators defines the schemas

ENVIRONMENT_VARIABLE = "MAMBAIR_FUSED"


# a reason not to use the fused layers, and its test of an input; the library is loaded only if no earlier test holds
RULES: dict[str, Callable[[Tensor], bool]] = {
    "torch.compile, torch.export and torch.jit.trace keep the layers' own code": lambda x: (
        torch.compiler.is_compiling() or torch_private.is_traced()
    ),
    f"{ENVIRONMENT_VARIABLE}=0": lambda x: os.environ.get(ENVIRONMENT_VARIABLE) == "0",
    "they have no gradients": lambda x: torch.is_grad_enabled(),
    "they run on the CPU": lambda x: x.device.type != "cpu",
    "they compute in float32": lambda x: x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"),
    "the tensor is of a class of its own": lambda x: type(x) not in (Tensor, nn.Parameter),
    "transforms and watchers of torch's operations want those of the layers": lambda x: (
        torch_private.is_watched() or torch_private.is_transformed()
    ),
    f"{backends.ENVIRONMENT_VARIABLE} asks for other code": lambda x: (
        os.environ.get(backends.ENVIRONMENT_VARIABLE, "") not in ("", "native")
    ),
    "there is no native library": lambda x: not native.load(),
    "torch's products are faster than those of the portable instruction set": lambda x: native.isa() == "portable",
}


def why_not(x: Tensor) -> str | None:
    """The first reason of ``RULES`` against the fused layers for an input; None where they run."""
    return next((reason for reason, holds in RULES.items() if holds(x)), None)


def token_layers(
    x: Tensor,
    linear: nn.Linear | nn.Conv2d,
    *,
    norm: nn.LayerNorm | None = None,
    gate: Tensor | None = None,
    residual: tuple[Tensor, Tensor] | None = None,
    gated: bool = False,
) -> tuple[Tensor, Tensor]:
    """``linear(norm(x) * gate) + residual[0] * residual[1]``, float32, without gradient.

    Args:
        x: [..., C].
        linear: from C to its outputs; a 1x1 convolution is one too.
        norm: of C channels, with weight and bias.
        gate: as ``x``.
        residual: a tensor like the output and a scale for each of its channels; not with ``gated``.
        gated: the second half of the outputs is a gate: it goes through SiLU and is returned apart.

    Returns:
        The outputs (without ``gated`` all, else the first half), and the gate or an empty tensor.
    """
    scales = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
    added = (None, None) if residual is None else residual
    return torch.ops.mambair.token_layers(x, *scales, gate, linear.weight.flatten(1), linear.bias, *added, gated)


def depthwise_layers(
    x: Tensor,
    convolution: nn.Conv2d,
    activation: str,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    keep: bool = True,
) -> tuple[Tensor, Tensor]:
    """``y = activation(convolution(x))`` and ``F.linear(y, weight, bias)``, float32, without gradient.

    Args:
        x: [B, H, W, C].
        convolution: depthwise 3x3, any dilation, which keeps the size.
        activation: "none", "silu" or "gelu".
        weight, bias: [outputs, C] and [outputs], or None for no product.
        keep: whether y is wanted; else an empty tensor stands for it.

    Returns:
        y [B, H, W, C] and the product [B, H, W, outputs]; empty tensors for what is not wanted.
    """
    dilation = int(convolution.dilation[0])
    return torch.ops.mambair.depthwise_layers(
        x, convolution.weight, convolution.bias, dilation, activation, weight, bias, keep
    )


def scaled_sum(x: Tensor, x_scale: Tensor, y: Tensor, y_scale: Tensor) -> Tensor:
    """``x * x_scale + y * y_scale`` in float32, without gradient; x and y [B, ..., C], scales [B, C] and [C]."""
    return torch.ops.mambair.scaled_sum(x, x_scale, y, y_scale)
