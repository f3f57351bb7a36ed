"""Muon for matrices and AdamW for everything else, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Train matrices with Muon (Jordan et al., 2024) and other parameters with AdamW, at one learning rate.

    Muon's step is scaled so that a learning rate of AdamW fits both ("match_rms_adamw", Liu et al., 2025).

    Args:
        groups: parameter groups, as `split_matrices` gives them.
        lr: learning rate.
        weight_decay: of groups that do not state their own.
        momentum: of Muon.
        nesterov: of Muon.
        ns_steps: Newton-Schulz iterations of Muon.
        betas: of AdamW.
        eps: of AdamW.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        matrices = [group for group in groups if group["is_matrix"]]
        others = [group for group in groups if not group["is_matrix"]]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": "match_rms_adamw"}
            self.parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, **muon))
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps))
        super().__init__([group for part in self.parts for group in part.param_groups], {"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        """Let ``param_groups`` be the dictionaries of the parts, so that a changed learning rate reaches them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step both; ``closure`` is not supported."""
        if closure is not None:
            raise ValueError("MuonWithAdamW takes no closure")
        for part in self.parts:
            part.step()
        return None

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """The states of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` gave.

        Raises:
            ValueError: the state of another optimiser.
        """
        states = state_dict.get("parts")
        if not isinstance(states, list) or len(states) != len(self.parts):
            raise ValueError("the training state was written by another optimiser than Muon")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        self._share_groups()


def split_matrices(groups: Sequence[dict[str, Any]], named: Sequence[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    """Split each group into its matrices and the rest, marked by ``is_matrix``; empty groups are left out.

    A table of relative positions is no matrix that maps features, so names with "bias" count with the rest.
    """
    mapping = {id(weight) for name, weight in named if weight.ndim == 2 and "bias" not in name.rpartition(".")[2]}
    parts = []
    for group in groups:
        for is_matrix in (True, False):
            weights = [weight for weight in group["params"] if (id(weight) in mapping) == is_matrix]
            parts.append({**group, "params": weights, "is_matrix": is_matrix})
    return [part for part in parts if part["params"]]
