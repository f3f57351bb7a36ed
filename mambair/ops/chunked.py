"""The scans in plain torch operations: any device, differentiable any number of times, memory bounded by blocks.

A block of tokens is cut into M runs of T. All runs take their T steps side by side, first from a zero state to learn
where each run would end, then, after the M ends were carried over, from the right state. Carrying needs the decay of
a whole run, exp(A * sum(delta)), so nothing is ever divided by a decay that may have underflowed.

Letters: Z batch, L tokens, G groups (or directions), N state size, P channels of a group, S = M * T tokens of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers in one [S, Z, G, N, P] array of a block. On a CPU a block should stay in the cache; elsewhere the
# count of kernel launches decides, and so does the size of the graph while compiling.
_CPU_BLOCK = 2**18
_WIDE_BLOCK = 2**24


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
    """:func:`mambair.ops.selective_scan` without its checks; returns y [B, L, D] in u.dtype and the last state."""
    with _without_autocast(u):
        dtype = _compute_dtype(u, delta, B, C)
        step = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)
        step = F.softplus(step) if delta_softplus else step
        x, groups = u.to(dtype), B.shape[2]
        inputs = [x, step, B.to(dtype), C.to(dtype)]
        if index is not None:
            inputs = [_gather(t, index) for t in inputs]
        grouped = [t.unflatten(2, (groups, -1)) for t in inputs[:2]]  # [Z, L, G, P]
        decay_rate = _grouped(A.to(dtype), groups)  # [G, N, P]
        if initial_state is None:
            state = x.new_zeros((u.shape[0], *decay_rate.shape))
        else:
            state = _grouped(initial_state.to(dtype), groups)  # [Z, G, N, P]
        y, state = _scan(*grouped, decay_rate, *inputs[2:], state)
        y = y.flatten(2)
        if index is not None:
            y = torch.zeros_like(y).scatter(1, index.unsqueeze(-1).expand_as(y), y)
        y = y if D is None else y + x * D.to(dtype)
        y = y if z is None else y * F.silu(z.to(dtype))
        return y.to(u.dtype), state.transpose(-1, -2).flatten(1, 2)


def ss2d_scan(
    x: Tensor,
    projection: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    directions: Sequence[int] = (0, 1, 2, 3),
) -> Tensor:
    """:func:`mambair.ops.ss2d_scan` without its checks."""
    with _without_autocast(x):
        dtype = _compute_dtype(x, projection)
        height, width = x.shape[1:3]
        rank, states = dt_weight.shape[2], A.shape[2]
        image = x.to(dtype)
        u = torch.stack([_tokens(image, d) for d in directions], dim=2)  # [Z, L, K, P]
        packed = torch.stack([_tokens(projection[:, :, :, k], d) for k, d in enumerate(directions)], dim=2).to(dtype)
        dt, B, C = packed.split([rank, states, states], dim=-1)
        delta = F.softplus(torch.einsum("zlkr,kpr->zlkp", dt, dt_weight.to(dtype)) + dt_bias.to(dtype))
        decay_rate = A.to(dtype).transpose(1, 2)
        y, _ = _scan(u, delta, decay_rate, B, C, x.new_zeros((x.shape[0], *decay_rate.shape), dtype=dtype))
        total = image * D.to(dtype).sum(0)
        for k, direction in enumerate(directions):
            total = total + _image(y[:, :, k], direction, height, width)
        return total.to(x.dtype)


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """u, delta [Z, L, G, P], A [G, N, P], B, C [Z, L, G, N], state [Z, G, N, P] -> y [Z, L, G, P], last state."""
    length = u.shape[1]
    wide = u.device.type != "cpu" or torch.compiler.is_compiling()
    tokens = max(1, (_WIDE_BLOCK if wide else _CPU_BLOCK) // max(1, state.numel()))
    outputs = []
    for block in zip(*(t.split(tokens, dim=1) for t in (u, delta, B, C)), strict=True):
        y, state = _Block.apply(*block, A, state)
        outputs.append(y)
    return (torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]), state


class _Block(torch.autograd.Function):
    """The scan of one block; backward computes the states again, so only the inputs and the first state are kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        length = u.shape[1]
        u, delta, B, C = _fold(length, u, delta, B, C)
        _, states, last = _states(u, delta, B, A, state)
        y = torch.matmul(C.unsqueeze(-2), states).squeeze(-2)  # [T, Z, M, G, P]
        return _unfold(y, length), last

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_y: Tensor, grad_last: Tensor):
        u, delta, B, C, A, state = ctx.saved_tensors
        with _without_autocast(u):
            return _block_backward(u, delta, B, C, A, state, grad_y, grad_last)


def _block_backward(
    u: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of a block from its inputs; itself made of differentiable operations for second derivatives."""
    length = u.shape[1]
    u, delta, B, C, grad_y = _fold(length, u, delta, B, C, grad_y)
    drive = delta * u
    decay, states, _ = _states(u, delta, B, A, state)
    # What the state before a token passes on: decay[t + 1] reaches back from token t + 1 to token t.
    next_delta = torch.cat([delta[1:], _next_run(delta[0], 0.0).unsqueeze(0)])
    next_decay = [*decay[1:], _next_run(decay[0], 1.0)]
    source = C.unsqueeze(-1) * grad_y.unsqueeze(-2)
    through = torch.exp(next_delta.sum(0).unsqueeze(-2) * A)
    adjoint, first = _recurrence(next_decay[::-1], source.unbind(0)[::-1], through, grad_last, reverse=True)
    adjoint = adjoint.flip(0)
    before = torch.cat([_previous_run(states[-1], state).unsqueeze(0), states[:-1]])
    decay = torch.stack(decay)
    flow = adjoint * decay * before  # gradient of delta * A
    grad_drive = torch.matmul(B.unsqueeze(-2), adjoint).squeeze(-2)
    grad_delta = grad_drive * u + (flow * A).sum(-2)
    grad_A = (flow * delta.unsqueeze(-2)).sum((0, 1, 2))
    grad_B = torch.matmul(adjoint, drive.unsqueeze(-1)).squeeze(-1)
    grad_C = torch.matmul(states, grad_y.unsqueeze(-1)).squeeze(-1)
    grad_state = decay[0, :, 0] * first
    unfolded = (_unfold(t, length) for t in (grad_drive * delta, grad_delta, grad_B, grad_C))
    return (*unfolded, grad_A, grad_state)


def _states(
    u: Tensor, delta: Tensor, B: Tensor, A: Tensor, state: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Decays (T of [Z, M, G, N, P]), states after every token [T, Z, M, G, N, P] and the last state [Z, G, N, P]."""
    decay = torch.exp(delta.unsqueeze(-2) * A).unbind(0)
    drive = ((delta * u).unsqueeze(-2) * B.unsqueeze(-1)).unbind(0)
    through = torch.exp(delta.sum(0).unsqueeze(-2) * A)
    states, last = _recurrence(decay, drive, through, state)
    return decay, states, last


def _recurrence(
    decay: Sequence[Tensor], drive: Sequence[Tensor], through: Tensor, state: Tensor, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """h[t] = decay[t] * h[t - 1] + drive[t] inside each of M runs, the runs joined in order (from the last if reverse).

    decay, drive: T of [Z, M, G, N, P]; through [Z, M, G, N, P]: decay of a whole run. Returns all h [T, ...] and the last.
    """
    runs = through.shape[1]
    if runs == 1:
        entry = state.unsqueeze(1)
    else:
        end = drive[0]
        for a, b in zip(decay[1:], drive[1:], strict=True):
            end = torch.addcmul(b, a, end)
        entries = [state]
        order = range(runs - 1, 0, -1) if reverse else range(runs - 1)
        for m in order:
            entries.append(torch.addcmul(end[:, m], through[:, m], entries[-1]))
        entry = torch.stack(entries[::-1] if reverse else entries, dim=1)
    states = []
    for a, b in zip(decay, drive, strict=True):
        entry = torch.addcmul(b, a, entry)
        states.append(entry)
    return torch.stack(states), entry[:, 0 if reverse else -1]


def _fold(length: int, *tensors: Tensor) -> list[Tensor]:
    """[Z, S, ...] -> [T, Z, M, ...]. Missing tokens are zeros, which leave the state as it is."""
    runs = max(1, math.isqrt(2 * length)) if length > 8 else 1
    steps = -(-length // runs)
    runs = -(-length // steps)
    folded = []
    for t in tensors:
        padded = F.pad(t, (0, 0, 0, 0, 0, runs * steps - length)) if runs * steps > length else t
        folded.append(padded.unflatten(1, (runs, steps)).permute(2, 0, 1, 3, 4).contiguous())
    return folded


def _unfold(t: Tensor, length: int) -> Tensor:
    return t.permute(1, 2, 0, 3, 4).flatten(1, 2)[:, :length]


def _next_run(first: Tensor, fill: float) -> Tensor:
    """[Z, M, ...] -> the same, each run replaced by the one after it; ``fill`` after the last."""
    return torch.cat([first[:, 1:], torch.full_like(first[:, :1], fill)], dim=1)


def _previous_run(last: Tensor, state: Tensor) -> Tensor:
    return torch.cat([state.unsqueeze(1), last[:, :-1]], dim=1)


def _grouped(t: Tensor, groups: int) -> Tensor:
    """[..., D, N] -> [..., G, N, P]: the channels go last, where they are contiguous."""
    return t.unflatten(-2, (groups, -1)).transpose(-1, -2).contiguous()


def _gather(t: Tensor, index: Tensor) -> Tensor:
    """t [B, L, ...] -> t at the pixels of ``index`` [B, L]."""
    flat = t.flatten(2)
    return flat.gather(1, index.unsqueeze(-1).expand(-1, -1, flat.shape[2])).view_as(t)


def _tokens(image: Tensor, direction: int) -> Tensor:
    """[Z, H, W, P] -> [Z, L, P] in scan order."""
    t = (image.transpose(1, 2) if direction % 2 else image).flatten(1, 2)
    return t.flip(1) if direction >= 2 else t


def _image(tokens: Tensor, direction: int, height: int, width: int) -> Tensor:
    """[Z, L, P] in scan order -> [Z, H, W, P]."""
    t = tokens.flip(1) if direction >= 2 else tokens
    return t.unflatten(1, (width, height)).transpose(1, 2) if direction % 2 else t.unflatten(1, (height, width))


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _without_autocast(t: Tensor) -> AbstractContextManager[object]:
    return torch.autocast(t.device.type, enabled=False)
