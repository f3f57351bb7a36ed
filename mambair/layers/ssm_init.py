"""Initial values of selective-scan parameters (Gu and Dao, "Mamba", 2023; section 3.6 and S4D-real)."""

from __future__ import annotations

import math
from typing import Literal

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


def scan_parameters(
    inner: int,
    state: int,
    rank: int,
    directions: int,
    *,
    dt_min: float,
    dt_max: float,
    dt_scale: float,
    dt_init: str,
    dt_init_floor: float,
) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, nn.Parameter]:
    """dt_projs_weight [K, D, R], dt_projs_bias [K, D], A_logs [K * D, N] and Ds [K * D] as Mamba draws them."""
    weight, bias = step_projection(
        inner,
        rank,
        directions,
        dt_min=dt_min,
        dt_max=dt_max,
        dt_scale=dt_scale,
        dt_init=dt_init,
        dt_init_floor=dt_init_floor,
    )
    return weight, bias, state_decay_logs(inner, state, directions), skip_weights(inner, directions)


def random_scan_parameters(
    inner: int, state: int, rank: int, directions: int, initialize: Literal["v1", "v2"]
) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, nn.Parameter]:
    """The same four, with less structure (VMamba's experiments).

    "v1": normal decay logs, step projection 0.1 * normal; "v2": decay logs 0, step projection 0.1 * uniform.

    Raises:
        ValueError: ``initialize`` is neither.
    """
    if initialize not in ("v1", "v2"):
        raise ValueError(f'initialize must be "v0", "v1" or "v2", got {initialize!r}')
    normal = initialize == "v1"
    draw = torch.randn if normal else torch.rand
    weight, bias = 0.1 * draw(directions, inner, rank), 0.1 * draw(directions, inner)
    decay_logs = torch.randn(directions * inner, state) if normal else torch.zeros(directions * inner, state)
    return nn.Parameter(weight), nn.Parameter(bias), nn.Parameter(decay_logs), skip_weights(inner, directions)
