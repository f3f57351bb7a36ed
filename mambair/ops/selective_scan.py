"""The one-dimensional selective scan: its contract and checks, and mamba_ssm's signature as a thin shell."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from mambair.ops import backends
from mambair.ops.checks import check_dimensions, check_tensors


@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, *, delta_softplus: bool = False, initial_state: Tensor | None = None,
    index: Tensor | None = None, return_last_state: Literal[False] = False,
) -> Tensor: ...  # fmt: skip
@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, *, delta_softplus: bool = False, initial_state: Tensor | None = None,
    index: Tensor | None = None, return_last_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
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
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the recurrence of a selective state-space model along L tokens, channels last.

    For every channel d, with state h of N numbers and h = ``initial_state`` (or 0) before the first token::

        step = softplus(delta[t, d] + delta_bias[d])        (without softplus unless ``delta_softplus``)
        h    = exp(step * A[d]) * h + step * u[t, d] * B[t, d // (D / G)]
        y    = (sum(h * C[t, d // (D / G)]) + D[d] * u[t, d]) * silu(z[t, d])

    Args:
        u: Input [B, L, D].
        delta: Step sizes [B, L, D]; meant to be positive after bias and softplus.
        A: Decay rates [D, N], real; negative in every published network.
        B: Input matrix of every token [B, L, G, N]; G divides D, and channel d uses group d // (D / G).
        C: Output matrix of every token [B, L, G, N].
        D: Skip weights [D], or None.
        z: Gate [B, L, D], or None.
        delta_bias: Added to ``delta`` before the softplus [D], or None.
        delta_softplus: Whether ``delta`` goes through softplus.
        initial_state: State before the first token [B, D, N], or None for zeros.
        index: int64 [B, L], a permutation of 0 ... L - 1 in each row (not checked), or None. Token t of the scan reads
            place ``index[b, t]`` of u, delta, B, C and z, and its output is written to that place of y.
        return_last_state: Whether the state after the last token is returned too.

    Returns:
        y [B, L, D] in the dtype of ``u``; with ``return_last_state`` also the state [B, D, N] in float32.
        Inputs may be float32, bfloat16 or float16 and need not agree; all arithmetic is float32, also under autocast.
        A float64 input makes all of it float64. Gradients exist for every floating input and have its dtype.

    Raises:
        ValueError: A shape, dtype or device does not fit; the message names the argument, the rule and what was found.
        RequestError: ``MAMBAIR_SCAN_BACKEND`` names a backend that does not exist or cannot run this.
    """
    _check(u, delta, A, B, C, D, z, delta_bias, initial_state, index)
    tensors = tuple(t for t in (u, delta, A, B, C, D, z, delta_bias, initial_state) if t is not None)
    carries_state = return_last_state or initial_state is not None
    arguments = (u, delta, A, B, C, D, z, delta_bias)
    options = {"delta_softplus": delta_softplus, "initial_state": initial_state, "index": index}
    extra = (delta_softplus, D is None, z is None, delta_bias is None, index is None)
    backend = backends.choose(tensors, states=A.shape[1], carries_state=carries_state, extra=extra,
                              run=lambda backend: backend.selective_scan(*arguments, **options)[0])  # fmt: skip
    y, state = backend.selective_scan(*arguments, **options)
    return (y, state) if return_last_state else y


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`selective_scan` with the signature and layout of mamba_ssm's ``selective_scan_fn``.

    Args:
        u, delta, z: [B, D, L].
        A: [D, N], real.
        B, C: [D, N] (the same for all tokens), [B, N, L] or [B, G, N, L].
        D, delta_bias: [D].
        delta_softplus: Whether ``delta`` goes through softplus.
        return_last_state: Whether the last state [B, D, N] is returned too; it is differentiable here.

    Returns:
        y [B, D, L] in the dtype of ``u``, a transposed view of the channels-last result; the last state if asked for.

    Raises:
        ValueError: As :func:`selective_scan`; also for the complex A that mamba_ssm's function takes.
    """
    check_dimensions("u", u, "[B, D, L]")
    check_dimensions("delta", delta, "[B, D, L]")
    if z is not None:
        check_dimensions("z", z, "[B, D, L]")
        z = z.transpose(1, 2)
    B, C = _channels_last("B", B, u), _channels_last("C", C, u)
    arguments = (u.transpose(1, 2), delta.transpose(1, 2), A, B, C, D, z, delta_bias)
    if not return_last_state:
        return selective_scan(*arguments, delta_softplus=delta_softplus).transpose(1, 2)
    y, state = selective_scan(*arguments, delta_softplus=delta_softplus, return_last_state=True)
    return y.transpose(1, 2), state


def _channels_last(name: str, t: Tensor, u: Tensor) -> Tensor:
    """Any of mamba_ssm's three forms of B and C -> [B, L, G, N]."""
    batch, channels, length = u.shape
    if t.dim() == 4:
        return t.permute(0, 3, 1, 2)
    if t.dim() == 3:
        return t.transpose(1, 2).unsqueeze(2)
    if t.dim() == 2 and t.shape[0] == channels:  # every channel its own group, every token the same
        return t.expand(batch, length, channels, t.shape[1])
    raise ValueError(f"{name} must be [D, N], [B, N, L] or [B, G, N, L]; found {list(t.shape)}")


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    index: Tensor | None,
) -> None:
    check_dimensions("u", u, "[B, L, D]")
    check_dimensions("A", A, "[D, N]")
    check_dimensions("B", B, "[B, L, G, N]")
    batch, length, channels = u.shape
    states, groups = A.shape[1], B.shape[2]
    if groups < 1 or channels % groups:
        raise ValueError(f"B: the number of groups G must divide the {channels} channels of u; found G = {groups}")
    wanted = {
        "delta": (delta, (batch, length, channels), "[B, L, D] as u"),
        "A": (A, (channels, states), "[D, N]"),
        "B": (B, (batch, length, groups, states), "[B, L, G, N]"),
        "C": (C, (batch, length, groups, states), "[B, L, G, N] as B"),
        "D": (D, (channels,), "[D]"),
        "z": (z, (batch, length, channels), "[B, L, D] as u"),
        "delta_bias": (delta_bias, (channels,), "[D]"),
        "initial_state": (initial_state, (batch, channels, states), "[B, D, N]"),
    }
    check_tensors("u", u, wanted)
    if index is None:
        return
    if index.dtype != torch.int64:
        raise ValueError(f"index must be int64; found {index.dtype}")
    if index.shape != (batch, length) or index.device != u.device:
        raise ValueError(
            f"index must be [B, L] = {[batch, length]} on {u.device}; found {list(index.shape)} on {index.device}"
        )
