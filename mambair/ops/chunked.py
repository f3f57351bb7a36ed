"""The scans in plain torch operations: any device, differentiable any number of times, memory bounded by blocks.

A block of tokens is cut into M runs of T. All runs take their T steps side by side, first from a zero state to learn
where each run would end, then, after the M ends were carried over, from the right state. Carrying needs the decay of
a whole run, exp(A * sum(delta)), so nothing is ever divided by a decay that may have underflowed.

Letters: Z batch, L tokens, G groups (or directions), N state size, P channels of a group, S = M * T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.scan_order import gather, scatter, to_image, to_tokens


class _Sizes(NamedTuple):
    """How many numbers one [S, Z, G, N, P] array of a block, and the states of M runs side by side, may have."""

    block: int
    runs: int


_LARGE_IMAGE = 2**22  # numbers in [B, H, W, D]: 16 MiB for each copy

# On a CPU a block should stay in the cache, and a step should outweigh the call that makes it.
_CPU = _Sizes(block=2**20, runs=2**13)
# Elsewhere the number of launches decides; while compiling, the size of the graph.
_WIDE = _Sizes(block=2**24, runs=2**24)


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
        dtype = _compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
        step = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)
        step = F.softplus(step) if delta_softplus else step
        x, groups = u.to(dtype), B.shape[2]
        inputs = [x, step, B.to(dtype), C.to(dtype)]
        if index is not None:
            inputs = [gather(t, index) for t in inputs]
        x_tokens, step, B, C = inputs
        x_tokens, step = (t.unflatten(2, (groups, -1)) for t in (x_tokens, step))  # [Z, L, G, P]
        decay_rate = _grouped(A.to(dtype), groups)  # [G, N, P]
        if initial_state is None:
            state = x.new_zeros((u.shape[0], *decay_rate.shape))
        else:
            state = _grouped(initial_state.to(dtype), groups)  # [Z, G, N, P]
        y, state = _scan(x_tokens, step, decay_rate, B, C, state)
        y = y.flatten(2)
        if index is not None:
            y = scatter(y, index)
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
        dtype = _compute_dtype(x, projection, dt_weight, dt_bias, A, D)
        image = x.to(dtype)
        dt_weight, dt_bias, A, D = (t.to(dtype) for t in (dt_weight, dt_bias, A, D))
        total = image * D.sum(0)
        # The directions of a large image one by one, so that only one has its copies in memory.
        count = len(directions)
        together = 1 if x.numel() > _LARGE_IMAGE and not torch.is_grad_enabled() else count
        for first in range(0, count, together):
            part = slice(first, first + together)
            parameters = dt_weight[part], dt_bias[part], A[part]
            total = total + _some_directions(image, projection[:, :, :, part], *parameters, directions[part])
        return total.to(x.dtype).contiguous()


def _some_directions(
    image: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, directions: Sequence[int]
) -> Tensor:
    """The sum of some directions of :func:`ss2d_scan`, without the skip; parameters in the dtype of ``image``."""
    height, width = image.shape[1:3]
    rank, states = dt_weight.shape[2], A.shape[2]
    u = torch.stack([to_tokens(image, d) for d in directions], dim=2)  # [Z, L, K, P]
    packed = torch.stack([to_tokens(projection[:, :, :, k], d) for k, d in enumerate(directions)], dim=2)
    dt, B, C = packed.to(image.dtype).split([rank, states, states], dim=-1)
    delta = F.softplus(torch.einsum("zlkr,kpr->zlkp", dt, dt_weight) + dt_bias)
    decay_rate = A.transpose(1, 2).contiguous()  # [K, N, P]
    y, _ = _scan(u, delta, decay_rate, B, C, image.new_zeros((image.shape[0], *decay_rate.shape)))
    total = to_image(y[:, :, 0], directions[0], height, width)
    for k, direction in enumerate(directions[1:], start=1):
        total = total + to_image(y[:, :, k], direction, height, width)
    return total


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """u, delta [Z, L, G, P], A [G, N, P], B, C [Z, L, G, N], state [Z, G, N, P] -> y [Z, L, G, P], last state."""
    if u.shape[1] == 0:
        return u.new_zeros(u.shape), state
    tokens = max(1, _sizes(u).block // max(1, state.numel()))
    outputs = []
    for block in zip(*(t.split(tokens, dim=1) for t in (u, delta, B, C)), strict=True):
        y, state = _Block.apply(*block, A.unsqueeze(0), state)
        outputs.append(y)
    return (torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]), state


class _Block(torch.autograd.Function):
    """The scan of one block; backward computes the states again, so only the inputs and the first state are kept.

    u, delta [Z, S, G, P], B, C [Z, S, G, N], A [1 or Z, G, N, P], state [Z, G, N, P] -> y [Z, S, G, P], last state.
    """

    @staticmethod
    def forward(u: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        length, runs = u.shape[1], _runs(u, state)
        u, delta, B, C = _fold(runs, u, delta, B, C)
        rate = A.unsqueeze(1)
        decay = torch.mul(delta.unsqueeze(-2), rate).exp_()  # [T, Z, M, G, N, P]
        drive = (delta * u).unsqueeze(-2) * B.unsqueeze(-1)
        states = _states(decay, drive, _through(delta, rate), state)
        y = torch.matmul(C.unsqueeze(-2), states).squeeze(-2)
        return _unfold(y, length), states[-1, :, -1].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        u, delta, B, C, A, state = ctx.saved_tensors
        with _without_autocast(u):
            return _block_backward(u, delta, B, C, A, state, grad_y, grad_last)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Fold the mapped dimension into Z."""
        state, dim = inputs[5], in_dims[5]
        count, samples = info.batch_size, state.shape[1 if dim == 0 else 0]

        def folded(t: Tensor, dim: int | None) -> Tensor:
            mapped = t.unsqueeze(0) if dim is None else t.movedim(dim, 0)
            return mapped.expand(count, samples, *mapped.shape[2:]).flatten(0, 1)

        flat = [folded(t, d) for t, d in zip(inputs, in_dims, strict=True)]
        y, last = _Block.apply(*flat)
        return (y.unflatten(0, (count, samples)), last.unflatten(0, (count, samples))), (0, 0)


def _block_backward(
    u: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor, state: Tensor, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of a block from its inputs; made of differentiable operations, for second derivatives and vmap."""
    length, runs = u.shape[1], _runs(u, state)
    u, delta, B, C, grad_y = _fold(runs, u, delta, B, C, grad_y)
    drive, rate = delta * u, A.unsqueeze(1)
    decay = torch.exp(delta.unsqueeze(-2) * rate).unbind(0)
    states = _recurrence(decay, (drive.unsqueeze(-2) * B.unsqueeze(-1)).unbind(0), _through(delta, rate), state)
    # The state after token t reaches token t + 1 through decay[t + 1], also when that is in the next run.
    next_delta = torch.cat([delta[1:], _next_run(delta[0], 0.0).unsqueeze(0)])
    next_decay = [*decay[1:], _next_run(decay[0], 1.0)]
    source = (C.unsqueeze(-1) * grad_y.unsqueeze(-2)).unbind(0)
    adjoints = _recurrence(next_decay[::-1], source[::-1], _through(next_delta, rate), grad_last, reverse=True)
    grad_state = decay[0][:, 0] * adjoints[-1][:, 0]
    before = torch.stack([_previous_run(states[-1], state), *states[:-1]])
    adjoint, decay, states = torch.stack(adjoints[::-1]), torch.stack(decay), torch.stack(states)
    grad_exponent = adjoint * decay * before  # of delta * A
    grad_drive = torch.matmul(B.unsqueeze(-2), adjoint).squeeze(-2)
    grad_delta = grad_drive * u + (grad_exponent * rate).sum(-2)
    grad_A = (grad_exponent * delta.unsqueeze(-2)).sum((0, 2)).sum_to_size(A.shape)
    grad_B = torch.matmul(adjoint, drive.unsqueeze(-1)).squeeze(-1)
    grad_C = torch.matmul(states, grad_y.unsqueeze(-1)).squeeze(-1)
    unfolded = (_unfold(t, length) for t in (grad_drive * delta, grad_delta, grad_B, grad_C))
    return (*unfolded, grad_A, grad_state)


def _states(decay: Tensor, drive: Tensor, through: Tensor, state: Tensor) -> Tensor:
    """:func:`_recurrence` for whole [T, Z, M, G, N, P], written over ``drive``; graphs know no writing over parts."""
    steps, states = decay.unbind(0), drive.unbind(0)
    if torch.compiler.is_compiling():
        return torch.stack(_recurrence(steps, states, through, state))
    state = _entries(steps, states, through, state)
    for a, h in zip(steps, states, strict=True):
        state = h.addcmul_(a, state)
    return drive


def _recurrence(
    decay: Sequence[Tensor], drive: Sequence[Tensor], through: Tensor, state: Tensor, *, reverse: bool = False
) -> list[Tensor]:
    """h[t] = decay[t] * h[t - 1] + drive[t] in each of M runs, the runs joined in order (from the last if reverse).

    decay, drive: T of [Z, M, G, N, P]; through [Z, M, G, N, P]: decay of a whole run. Returns the T states h.
    """
    state = _entries(decay, drive, through, state, reverse=reverse)
    states = []
    for a, b in zip(decay, drive, strict=True):
        state = torch.addcmul(b, a, state)
        states.append(state)
    return states


def _entries(
    decay: Sequence[Tensor], drive: Sequence[Tensor], through: Tensor, state: Tensor, *, reverse: bool = False
) -> Tensor:
    """The state before each of the M runs [Z, M, G, N, P]; arguments as for :func:`_recurrence`."""
    runs = through.shape[1]
    if runs == 1:
        return state.unsqueeze(1)
    end = drive[0]  # where each run ends when it starts from zero
    for a, b in zip(decay[1:], drive[1:], strict=True):
        end = torch.addcmul(b, a, end)
    entries = [state]
    for m in range(runs - 1, 0, -1) if reverse else range(runs - 1):
        entries.append(torch.addcmul(end[:, m], through[:, m], entries[-1]))
    return torch.stack(entries[::-1] if reverse else entries, dim=1)


def _through(delta: Tensor, rate: Tensor) -> Tensor:
    """Decay of every whole run [Z, M, G, N, P] from the steps [T, Z, M, G, P]."""
    return torch.exp(delta.sum(0).unsqueeze(-2) * rate)


def _sizes(t: Tensor) -> _Sizes:
    return _CPU if t.device.type == "cpu" and not torch.compiler.is_compiling() else _WIDE


def _runs(u: Tensor, state: Tensor) -> int:
    """Number M of runs: about as many as steps in two sweeps, fewer if the states of fewer are work enough."""
    return max(1, min(int((2 * u.shape[1]) ** 0.5), _sizes(u).runs // max(1, state.numel())))


def _fold(runs: int, *tensors: Tensor) -> list[Tensor]:
    """[Z, S, ...] -> [T, Z, M, ...]. Missing tokens are zeros, which leave the state as it is."""
    length = tensors[0].shape[1]
    steps = -(-length // runs)
    missing = runs * steps - length
    folded = []
    for t in tensors:
        padded = F.pad(t, (0, 0, 0, 0, 0, missing)) if missing else t
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


def _compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


def _without_autocast(t: Tensor) -> AbstractContextManager[object]:
    device = t.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
