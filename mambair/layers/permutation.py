"""Rows of a matrix in another order, with a backward pass that knows the order is a permutation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore
        order, inverse = ctx.saved_tensors
        return _PermuteRows.apply(grad_outputs[0], inverse, order), None, None


def permute_rows(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Row i of the result is row ``order[i]`` of ``rows``.

    Args:
        rows: [M, C].
        order: int64 [M], each number below M once.
        inverse: int64 [M], ``inverse[order[i]]`` is i; the backward pass reads by it where it would have to scatter.

    Returns:
        [M, C], differentiable in ``rows``.
    """
    return _PermuteRows.apply(rows, order, inverse)  # type: ignore[no-any-return]


def inverse_permutation(order: Tensor) -> Tensor:
    """int64 [M] -> int64 [M]: where each number stands in ``order``."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
