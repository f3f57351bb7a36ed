"""The definition of both scans: slow, short loops that every other path must equal. Never optimised.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, equations 2a and 2b with
the zero-order hold of A and the Euler step of B. Letters: B batch, L tokens, D channels, N state size, G groups,
K directions, R rank of the step size, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """The contract of :func:`mambair.ops.selective_scan`, one token at a time; returns y and the last state.

    Computes in float32, or in float64 for a float64 ``u``.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    batch, length, channels = u.shape
    if index is None:
        index = torch.arange(length, device=u.device).expand(batch, length)
    rows = torch.arange(batch, device=u.device)
    step = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)
    step = F.softplus(step) if delta_softplus else step
    per_group = channels // B.shape[2]
    B, C = (t.to(dtype).repeat_interleave(per_group, dim=2) for t in (B, C))  # [B, L, D, N]
    drive = step * u.to(dtype)  # [B, L, D]
    state = u.new_zeros(batch, channels, A.shape[1], dtype=dtype) if initial_state is None else initial_state.to(dtype)
    outputs = []
    for t in range(length):
        pixel = rows, index[:, t]
        decay = torch.exp(step[pixel].unsqueeze(-1) * A.to(dtype))  # [B, D, N]
        state = decay * state + drive[pixel].unsqueeze(-1) * B[pixel]
        outputs.append((state * C[pixel]).sum(-1))
    scanned = torch.stack(outputs, dim=1)  # [B, L, D], in scan order
    y = torch.zeros_like(scanned).scatter(1, index.unsqueeze(-1).expand_as(scanned), scanned)
    y = y if D is None else y + u.to(dtype) * D.to(dtype)
    y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(u.dtype), state


def ss2d_scan(
    x: Tensor,
    projection: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    directions: Sequence[int] = (0, 1, 2, 3),
) -> Tensor:
    """The contract of :func:`mambair.ops.ss2d_scan`: one :func:`selective_scan` for each direction, then their sum."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch, height, width, channels = x.shape
    rank, states = dt_weight.shape[2], A.shape[2]
    tokens = x.to(dtype).reshape(batch, height * width, channels)
    y = torch.zeros_like(tokens)
    for k, direction in enumerate(directions):
        dt, B, C = projection[:, :, :, k].to(dtype).flatten(1, 2).split([rank, states, states], dim=-1)
        delta = dt @ dt_weight[k].to(dtype).T
        order = scan_order(direction, height, width, x.device).expand(batch, -1)
        scanned, _ = selective_scan(
            tokens,
            delta,
            A[k],
            B.unsqueeze(2),
            C.unsqueeze(2),
            D[k],
            None,
            dt_bias[k],
            delta_softplus=True,
            index=order,
        )
        y = y + scanned
    return y.reshape(x.shape).to(x.dtype)


def scan_order(direction: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Pixel (row-major number, int64 [H * W]) that each token of the scan visits.

    0: along the rows from the top left, 1: along the columns from the top left, 2: 0 backwards, 3: 1 backwards.
    """
    pixels = torch.arange(height * width, device=device).reshape(height, width)
    order = pixels.T.reshape(-1) if direction % 2 else pixels.reshape(-1)
    return order.flip(0) if direction >= 2 else order
