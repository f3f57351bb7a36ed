"""Initial values of selective-scan parameters (Gu and Dao, "Mamba", 2023; section 3.6 and S4D-real)."""

from __future__ import annotations

import math

import torch
from torch import nn


def state_decay_logs(inner: int, state: int, directions: int) -> nn.Parameter:
    """log(1), ..., log(N) for every channel of every direction: [K * D, N] float32; the decay is A = -exp of it."""
    row = torch.log(torch.arange(1, state + 1, dtype=torch.float32))
    return nn.Parameter(row.repeat(directions * inner, 1))


def skip_weights(inner: int, directions: int) -> nn.Parameter:
    """Ones [K * D] float32: how much of the scan's input is added to its output."""
    return nn.Parameter(torch.ones(directions * inner))


def input_projection(inner: int, outputs: int, directions: int) -> nn.Parameter:
    """[K, outputs, D] weights of the projection to (dt, B, C), drawn as torch draws a linear layer's."""
    bound = 1.0 / math.sqrt(inner)
    return nn.Parameter(torch.empty(directions, outputs, inner).uniform_(-bound, bound))


def step_projection(
    inner: int,
    rank: int,
    directions: int,
    *,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    dt_scale: float = 1.0,
    dt_init: str = "random",
    dt_init_floor: float = 1e-4,
) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights [K, D, R] and biases [K, D] of the step size delta = softplus(weight @ dt + bias).

    The bias is chosen so that softplus(bias) is log-uniform in [dt_min, dt_max] and at least ``dt_init_floor``.

    Raises:
        ValueError: ``dt_init`` is neither "random" nor "constant".
    """
    spread = rank**-0.5 * dt_scale
    weight = torch.empty(directions, inner, rank)
    if dt_init == "random":
        weight.uniform_(-spread, spread)
    elif dt_init == "constant":
        weight.fill_(spread)
    else:
        raise ValueError(f'dt_init must be "random" or "constant", got {dt_init!r}')
    low, high = math.log(dt_min), math.log(dt_max)
    steps = torch.exp(torch.rand(directions, inner) * (high - low) + low).clamp(min=dt_init_floor)
    inverse_softplus = steps + torch.log(-torch.expm1(-steps))
    return nn.Parameter(weight), nn.Parameter(inverse_softplus)
