"""The scans as operators of torch (namespace ``mambair``): schemas, fake implementations, autograd.

The implementations for a device come from its backend (the native library registers the CPU's). Their states output
holds the state before every 64th token; with ``save_states`` false it is empty, and backward is an error.
Letters: B batch, L tokens (H * W of an image), D channels, N state size, K directions, R rank of the step size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

STATE_CHUNK = 64

_LIBRARY = torch.library.Library("mambair", "DEF")
_SCHEMAS = (
    "ss2d_scan(Tensor x, Tensor projection, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor D, "
    "int[] directions, bool save_states) -> (Tensor y, Tensor states)",
    "ss2d_scan_backward(Tensor grad_y, Tensor x, Tensor projection, Tensor dt_weight, Tensor dt_bias, Tensor A, "
    "Tensor D, Tensor states, int[] directions) -> (Tensor grad_x, Tensor grad_projection, Tensor grad_dt_weight, "
    "Tensor grad_dt_bias, Tensor grad_A, Tensor grad_D)",
    "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, Tensor? index, bool delta_softplus, bool save_states) "
    "-> (Tensor y, Tensor last_state, Tensor states)",
    "selective_scan_backward(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B, "
    "Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? initial_state, Tensor? index, Tensor states, "
    "bool delta_softplus) -> (Tensor grad_u, Tensor grad_delta, Tensor grad_A, Tensor grad_B, Tensor grad_C, "
    "Tensor grad_D, Tensor grad_z, Tensor grad_delta_bias, Tensor grad_initial_state)",
    "token_layers(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float epsilon, Tensor? gate, Tensor weight, "
    "Tensor? bias, Tensor? residual, Tensor? scale, bool gated) -> (Tensor y, Tensor opened)",
    "depthwise_layers(Tensor x, Tensor weight, Tensor? bias, int dilation, str activation, Tensor? linear_weight, "
    "Tensor? linear_bias, bool keep) -> (Tensor y, Tensor projected)",
    "scaled_sum(Tensor x, Tensor x_scale, Tensor y, Tensor y_scale) -> Tensor",
)
for _schema in _SCHEMAS:
    _LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def implement(functions: Mapping[str, Callable[..., Any]], dispatch_key: str) -> None:
    """Add the implementations for a kind of device ("CUDA", "CPU"), by name of the operator without namespace."""
    for name, function in functions.items():
        _LIBRARY.impl(name, function, dispatch_key)


@torch.library.register_fake("mambair::ss2d_scan")
def _(x, projection, dt_weight, dt_bias, A, D, directions, save_states):
    batch, height, width, channels = x.shape
    chunks = (height * width + STATE_CHUNK - 1) // STATE_CHUNK
    shape = (batch, len(directions), chunks, A.shape[2], channels) if save_states else (0,)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=torch.float32)


@torch.library.register_fake("mambair::ss2d_scan_backward")
def _(grad_y, x, projection, dt_weight, dt_bias, A, D, states, directions):
    return tuple(t.new_empty(t.shape) for t in (x, projection, dt_weight, dt_bias, A, D))


@torch.library.register_fake("mambair::selective_scan")
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, index, delta_softplus, save_states):
    batch, length, channels = u.shape
    states = A.shape[1]
    chunks = (length + STATE_CHUNK - 1) // STATE_CHUNK
    saved = (batch, chunks, states, channels) if save_states else (0,)
    last = u.new_empty((batch, channels, states), dtype=torch.float32)
    return u.new_empty(u.shape), last, u.new_empty(saved, dtype=torch.float32)


@torch.library.register_fake("mambair::selective_scan_backward")
def _(
    grad_y, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, index, states, delta_softplus
):  # fmt: skip
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return tuple(u.new_empty((0,)) if t is None else t.new_empty(t.shape) for t in inputs)


@torch.library.register_fake("mambair::token_layers")
def _(x, norm_weight, norm_bias, epsilon, gate, weight, bias, residual, scale, gated):
    shape = (*x.shape[:-1], weight.shape[0] // (2 if gated else 1))
    return x.new_empty(shape), x.new_empty(shape if gated else (0,))


@torch.library.register_fake("mambair::depthwise_layers")
def _(x, weight, bias, dilation, activation, linear_weight, linear_bias, keep):
    projected = (0,) if linear_weight is None else (*x.shape[:-1], linear_weight.shape[0])
    return x.new_empty(x.shape if keep else (0,)), x.new_empty(projected)


@torch.library.register_fake("mambair::scaled_sum")
def _(x, x_scale, y, y_scale):
    return x.new_empty(x.shape)


def _ss2d_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, directions, save_states = inputs
    _, states = output
    ctx.mark_non_differentiable(states)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, states)
    ctx.directions, ctx.save_states = directions, save_states


def _ss2d_backward(ctx: Any, grad_y: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    _need_states(ctx)
    if grad_y is None:
        return (None,) * 8
    grads = torch.ops.mambair.ss2d_scan_backward(grad_y, *ctx.saved_tensors, ctx.directions)
    return (*grads, None, None)


def _selective_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, delta_softplus, save_states = inputs
    *_, states = output
    ctx.mark_non_differentiable(states)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, states)
    ctx.delta_softplus, ctx.save_states = delta_softplus, save_states


def _selective_backward(
    ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    _need_states(ctx)
    if grad_y is None and grad_last is None:
        return (None,) * 12
    *inputs, states = ctx.saved_tensors
    grad_y = inputs[0].new_zeros(inputs[0].shape) if grad_y is None else grad_y
    grads = torch.ops.mambair.selective_scan_backward(grad_y, grad_last, *inputs, states, ctx.delta_softplus)
    present = (g if t is not None else None for g, t in zip(grads, inputs[:9], strict=True))
    return (*present, None, None, None)


def _need_states(ctx: Any) -> None:
    if not ctx.save_states:
        raise RuntimeError("this scan ran with save_states=False, so it has no gradient; call it with save_states=True")


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> None:
    raise RuntimeError(
        "mambair: the backward of this scan cannot be differentiated again. For second derivatives set "
        "MAMBAIR_SCAN_BACKEND=torch, or use float64 inputs: the torch path has derivatives of every order."
    )


torch.library.register_autograd("mambair::ss2d_scan", _ss2d_backward, setup_context=_ss2d_setup)
torch.library.register_autograd("mambair::selective_scan", _selective_backward, setup_context=_selective_setup)
torch.library.register_autograd("mambair::ss2d_scan_backward", _refuse_double_backward)
torch.library.register_autograd("mambair::selective_scan_backward", _refuse_double_backward)


def _saves_states(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def ss2d_scan(
    x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, directions: list[int]
) -> Tensor:
    """Run the operator: parameters in float32, states saved exactly when a gradient may be asked for."""
    parameters = [t.float() for t in (dt_weight, dt_bias, A, D)]
    save_states = _saves_states(x, projection, *parameters)
    y, _ = torch.ops.mambair.ss2d_scan(x, projection, *parameters, directions, save_states)
    return y


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the operator: parameters in float32, states saved exactly when a gradient may be asked for."""
    A = A.float()
    D, delta_bias, initial_state = (None if t is None else t.float() for t in (D, delta_bias, initial_state))
    save_states = _saves_states(u, delta, A, B, C, D, z, delta_bias, initial_state)
    y, last_state, _ = torch.ops.mambair.selective_scan(
        u, delta, A, B, C, D, z, delta_bias, initial_state, index, delta_softplus, save_states
    )
    return y, last_state
