"""Activation checkpointing: less memory in training for about a third more time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mambair.system.errors import RequestError

SWITCH = "use_checkpoint"  # the attribute of a group of blocks; also that of the groups in basicsr's networks


def call_block(block: nn.Module, tokens: Tensor, *context: object, recompute: bool) -> Tensor:
    """``block(tokens, *context)``; with ``recompute``, only the arguments are kept for the backward pass, which runs
    the block again (with the same random numbers). Without gradients there is nothing to keep either way."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, *context, use_reentrant=False)  # type: ignore[no-any-return]
    return block(tokens, *context)


def groups_of(net: nn.Module) -> list[nn.Module]:
    """The groups of blocks that can compute their activations again, in the order of the network."""
    return [module for module in net.modules() if isinstance(getattr(module, SWITCH, None), bool)]


def recompute_groups(net: nn.Module, count: int) -> int:
    """Let the first ``count`` groups of ``net`` keep only their blocks' inputs for the backward pass.

    Returns:
        How many do; fewer than ``count`` if the network has fewer.

    Raises:
        RequestError: it has none.
    """
    groups = groups_of(net)
    if not groups:
        raise RequestError(
            f"train: checkpoint_groups: {type(net).__name__} has no group of blocks with a switch {SWITCH}; set it to 0"
        )
    for group in groups[:count]:
        setattr(group, SWITCH, True)
    return min(count, len(groups))
