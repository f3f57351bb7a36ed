"""Weighted means of checkpoints: network interpolation (Wang et al., ESRGAN, 2018) and model soups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mambair.weights.checkpoint import Checkpoint, CheckpointError


def mix(checkpoints: Sequence[Checkpoint], shares: Sequence[float]) -> dict[str, Tensor]:
    """Compute the weighted mean of every floating-point tensor; others must be equal in all checkpoints.

    Args:
        checkpoints: of one network: the same names and shapes.
        shares: one for each, which sum to 1; a share may be negative or above 1 (extrapolation).

    Returns:
        name -> tensor, in the dtype of the first checkpoint; sums are made in float64.

    Raises:
        ValueError: not one share for each checkpoint, or shares that do not sum to 1.
        CheckpointError: names, shapes or other values differ; the message names the first tensors.
    """
    if len(shares) != len(checkpoints) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must be {len(checkpoints)} numbers that sum to 1, got {list(shares)}")
    first = checkpoints[0].state_dict
    for other in checkpoints[1:]:
        _require_same(first, other.state_dict, f"{checkpoints[0].source} and {other.source}")
    mixed = {}
    for name, tensor in first.items():
        if tensor.is_floating_point():
            parts = [share * each.state_dict[name].double() for share, each in zip(shares, checkpoints, strict=True)]
            tensor = torch.stack(parts).sum(0).to(tensor.dtype)
        elif not all(torch.equal(tensor, each.state_dict[name]) for each in checkpoints[1:]):
            raise CheckpointError(f"{name} holds whole numbers that differ, which have no mean")
        mixed[name] = tensor
    return mixed


def _require_same(first: Mapping[str, Tensor], other: Mapping[str, Tensor], pair: str) -> None:
    differing = sorted(first.keys() ^ other.keys())
    differing += [name for name in first if name in other and first[name].shape != other[name].shape]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(f"{pair} are not of one network: {', '.join(differing[:3])}{more} differ")
