"""Decay rates of scans, A = -exp(A_logs): learnt as logarithms, so that they stay negative (Gu and Dao, 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LOGARITHMS = ("A_logs", "A_log", "A_b_log")  # the names they have in published weights


class DecayingScan(nn.Module):
    """Base of the layers that scan.

    Rates are computed in every pass. ``cache_decay`` keeps them for passes without gradient, until the layer is told
    to train, is given new weights or moves. Nothing else is noticed: who writes to ``parameter.data`` calls it again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cached_decay: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(_thaw)

    def decay(self, name: str) -> Tensor:
        """-exp of the parameter of that name, float32, of its shape."""
        logarithms, frozen = getattr(self, name), self._cached_decay.get(name)
        if frozen is None or torch.is_grad_enabled() or frozen.device != logarithms.device:
            return -torch.exp(logarithms.float())
        return frozen

    def cache_decay(self) -> None:
        """Compute the rates for the passes to come."""
        self._cached_decay = {}
        names = [name for name, _ in self.named_parameters(recurse=False) if name in LOGARITHMS]
        with torch.no_grad():
            self._cached_decay = {name: self.decay(name) for name in names}

    def train(self, mode: bool = True) -> DecayingScan:
        """As of any module; training thaws the rates."""
        if mode:
            self._cached_decay = {}
        return super().train(mode)


def cache_decays(net: nn.Module) -> None:
    """``cache_decay`` for all layers of a network whose weights will not change."""
    for module in net.modules():
        if isinstance(module, DecayingScan):
            module.cache_decay()


def _thaw(module: DecayingScan, _: Any) -> None:
    module._cached_decay = {}
