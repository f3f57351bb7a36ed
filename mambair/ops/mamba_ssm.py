"""The scans by mamba_ssm's CUDA kernel, where that package is installed: our channels-last tensors in and out of it.

Its kernel takes one dtype for all activations, so mixed ones are raised to the widest; it takes no initial state and
no order of tokens, so the latter is gathered and scattered here and the former declined.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from mambair.ops.scan_order import gather, scatter, to_image, to_tokens


@lru_cache(maxsize=1)
def _kernel() -> tuple[Callable[..., tuple[Tensor, Tensor]] | None, str | None]:
    """mamba_ssm's function, or why there is none. Its package imports much more, hence only on request."""
    try:
        from mamba_ssm.ops import selective_scan_interface as interface  # type: ignore[import-not-found]
    except ImportError as error:
        return None, f"mamba_ssm cannot be imported: {error}"
    if getattr(interface, "selective_scan_cuda", None) is None:
        return None, "this mamba_ssm was built without its CUDA kernel (MAMBA_KEEP_CUDA_BUILD=TRUE builds it)"
    return interface.selective_scan_fn, None


def why_not() -> str | None:
    """Why mamba_ssm's kernel cannot be used here, or None."""
    return _kernel()[1]


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
    """:func:`mambair.ops.selective_scan` without its checks and without states."""
    assert initial_state is None, "backends.py declines an initial state for mamba_ssm"
    activations = [t if index is None or t is None else gather(t, index) for t in (u, delta, B, C, z)]
    dtype = _widest(*(t for t in activations if t is not None))
    x, step, b, c, gate = (None if t is None else t.to(dtype) for t in activations)
    assert x is not None and step is not None and b is not None and c is not None
    y, last_state = _scan(x, step, A, b, c, D, gate, delta_bias, delta_softplus)
    y = y if index is None else scatter(y, index)
    return y.to(u.dtype), last_state.detach()


def ss2d_scan(
    x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, directions: list[int]
) -> Tensor:
    """:func:`mambair.ops.ss2d_scan` without its checks: the K directions are K groups of channels of one scan."""
    height, width = x.shape[1:3]
    rank, states = dt_weight.shape[2], A.shape[2]
    with torch.autocast(x.device.type, enabled=False):
        u = torch.stack([to_tokens(x, d) for d in directions], dim=2).float()  # [B, L, K, D]
        packed = torch.stack([to_tokens(projection[:, :, :, k], d) for k, d in enumerate(directions)], dim=2).float()
        dt, B, C = packed.split([rank, states, states], dim=-1)
        delta = torch.einsum("blkr,kdr->blkd", dt, dt_weight.float()).flatten(2)
        y, _ = _scan(u.flatten(2), delta, A.flatten(0, 1), B, C, D.flatten(), None, dt_bias.flatten(), True)
        y = y.unflatten(2, (len(directions), -1))
        total = sum(to_image(y[:, :, k], d, height, width) for k, d in enumerate(directions))
    return torch.as_tensor(total).to(x.dtype).contiguous()


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """u, delta, z [B, L, D], B, C [B, L, G, N] of one dtype -> y [B, L, D], last state [B, D, N]."""
    kernel, reason = _kernel()
    if kernel is None:
        raise RuntimeError(f"the mamba_ssm backend was called although {reason}")
    D, delta_bias = (None if t is None else t.float() for t in (D, delta_bias))
    B, C = (t.permute(0, 2, 3, 1).contiguous() for t in (B, C))
    u, delta = u.transpose(1, 2), delta.transpose(1, 2)
    z = None if z is None else z.transpose(1, 2)
    y, last_state = kernel(u, delta, A.float(), B, C, D, z, delta_bias, delta_softplus, True)
    return y.transpose(1, 2), last_state


def _widest(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype
