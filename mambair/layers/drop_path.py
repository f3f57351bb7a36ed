"""Stochastic depth: a residual branch is left out for some samples while training (Huang et al., ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero the branch of a sample with probability ``drop_prob``; the kept ones are scaled by 1 / (1 - drop_prob).

    Args:
        drop_prob: in [0, 1]. Nothing happens at 0 and in eval mode.

    Raises:
        ValueError: ``drop_prob`` is outside [0, 1].
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= drop_prob <= 1.0:
            raise ValueError(f"drop_prob must lie in [0, 1], got {drop_prob}")
        self.drop_prob = drop_prob

    def forward(self, branch: Tensor) -> Tensor:
        """[B, ...] -> [B, ...], one draw a sample."""
        if self.drop_prob == 0.0 or not self.training:
            return branch
        if self.drop_prob == 1.0:
            return branch * 0.0
        keep = 1.0 - self.drop_prob
        mask = branch.new_empty((branch.shape[0],) + (1,) * (branch.dim() - 1)).bernoulli_(keep)
        return branch * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


def linear_drop_rates(highest: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Drop rates that rise linearly from 0 to ``highest`` over all blocks, cut into groups of ``depths`` blocks.

    Raises:
        ValueError: ``highest`` is outside [0, 1].
    """
    if not 0 <= highest <= 1:
        raise ValueError(f"drop_path_rate must lie in [0, 1], got {highest}")
    rates = torch.linspace(0.0, highest, sum(depths), device="cpu").tolist()
    starts = [sum(depths[:i]) for i in range(len(depths))]
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=True)]
