"""What one would write without our kernel: SS2D cores in plain torch, x [B, H, W, D] to the sum of four directions.

All share the layout of the published networks: four stacked copies of the image (rows, columns, and both reversed),
projections of the copies, one scan over [B, 4 D, L], then flips and transposes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

UNROLLED = 32  # steps in one compiled function

# u, delta [B, K, D, L], A [K, D, N], B, C [B, K, N, L] -> y [B, K, D, L] without the skip term
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CoreInputs:
    """x [B, H, W, D], x_weight [4, R + 2N, D], dt_weight [4, D, R], dt_bias [4, D], A [4, D, N], D [4, D]."""

    x: Tensor
    x_weight: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.x, self.x_weight, self.dt_weight, self.dt_bias, self.A, self.D]


def copies_core(inputs: CoreInputs, scan: Scan) -> Tensor:
    """The published core around any scan: stack, transpose and flip copies in, flips and transposes out."""
    x = inputs.x.permute(0, 3, 1, 2)
    batch, channels, height, width = x.shape
    rank, states = inputs.dt_weight.shape[2], inputs.A.shape[2]
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    u = torch.stack([rows, columns], dim=1)
    u = torch.cat([u, u.flip(-1)], dim=1)  # [B, 4, D, L]
    packed = torch.einsum("bkdl,kpd->bkpl", u, inputs.x_weight)
    dt, B, C = packed.split([rank, states, states], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, inputs.dt_weight)
    delta = F.softplus(delta + inputs.dt_bias[None, :, :, None])
    y = scan(u, delta, inputs.A, B, C) + u * inputs.D[None, :, :, None]
    forwards = y[:, :2] + y[:, 2:].flip(-1)
    from_columns = forwards[:, 1].reshape(batch, channels, width, height).transpose(2, 3).flatten(2)
    return (forwards[:, 0] + from_columns).reshape(batch, channels, height, width).permute(0, 2, 3, 1)


def step_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """One token at a time from decays and drives held in memory, as published reference code does."""
    decay = torch.exp(torch.einsum("bkdl,kdn->bkdln", delta, A))
    drive = torch.einsum("bkdl,bknl->bkdln", delta * u, B)
    state = torch.zeros_like(drive[:, :, :, 0])
    outputs = []
    for t in range(u.shape[3]):
        state = decay[:, :, :, t] * state + drive[:, :, :, t]
        outputs.append(torch.einsum("bkdn,bkn->bkd", state, C[:, :, :, t]))
    return torch.stack(outputs, dim=3)


def _some_steps(state: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(u.shape[3]):
        step = delta[:, :, :, t, None]
        drive = step * u[:, :, :, t, None] * B[:, :, None, :, t]
        state = torch.exp(step * A) * state + drive
        outputs.append((state * C[:, :, None, :, t]).sum(-1))
    return state, torch.stack(outputs, dim=3)


def compiled_loop() -> Scan:
    """A scan whose loop body of 32 steps is one torch.compile function."""
    steps = torch.compile(_some_steps, fullgraph=True, dynamic=False)

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        state = u.new_zeros(*u.shape[:3], A.shape[2])
        outputs = []
        for first in range(0, u.shape[3], UNROLLED):
            pieces = [t[..., first : first + UNROLLED].contiguous() for t in (u, delta, B, C)]
            state, y = steps(state, pieces[0], pieces[1], A, pieces[2], pieces[3])
            outputs.append(y)
        return torch.cat(outputs, dim=3)

    return scan


def parallel_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """All tokens at once: log2(L) rounds in which each token takes over what lies 1, 2, 4, ... tokens before it."""
    decay = torch.exp(torch.einsum("bkdl,kdn->bkdnl", delta, A))
    state = torch.einsum("bkdl,bknl->bkdnl", delta * u, B)
    distance = 1
    while distance < u.shape[3]:
        earlier_state = F.pad(state[..., :-distance], (distance, 0))
        earlier_decay = F.pad(decay[..., :-distance], (distance, 0), value=1.0)
        state = state + decay * earlier_state
        decay = decay * earlier_decay
        distance *= 2
    return torch.einsum("bkdnl,bknl->bkdl", state, C)


def plain_cpp(library: Path) -> Scan:
    """The loops of ``plain_scan.cpp``; operators are registered under the library's name."""
    torch.ops.load_library(str(library))
    return getattr(torch.ops, library.stem).plain_scan


def contenders(libraries: Mapping[str, Path]) -> dict[str, Callable[[CoreInputs], Tensor]]:
    """The cores to be compared with ours, by name; ``libraries`` are builds of the plain one."""
    scans = {"step loop": step_loop, "compiled 32-step loop": compiled_loop()}
    scans |= {name: plain_cpp(library) for name, library in libraries.items()}
    return {name: partial(copies_core, scan=scan) for name, scan in scans.items()}
