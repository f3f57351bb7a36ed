"""Activation checkpointing group by group: as much memory saved as is needed, and no more time spent than that."""

from __future__ import annotations

from torch import nn

SWITCH = "use_checkpoint"  # the attribute of a group of blocks; also that of the groups in basicsr's networks


class RecomputationError(ValueError):
    """The network has no groups that can be recomputed."""


def groups_of(net: nn.Module) -> list[nn.Module]:
    """The groups of blocks that can compute their activations again, in the order of the network."""
    return [module for module in net.modules() if isinstance(getattr(module, SWITCH, None), bool)]


def recompute_groups(net: nn.Module, count: int) -> int:
    """Let the first ``count`` groups of ``net`` keep only their blocks' inputs for the backward pass.

    Returns:
        How many do; fewer than ``count`` if the network has fewer.

    Raises:
        RecomputationError: it has none.
    """
    groups = groups_of(net)
    if not groups:
        raise RecomputationError(
            f"train: checkpoint_groups: {type(net).__name__} has no group of blocks with a switch {SWITCH}; set it to 0"
        )
    for group in groups[:count]:
        setattr(group, SWITCH, True)
    return min(count, len(groups))
