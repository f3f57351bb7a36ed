"""Which optimiser an option block gives, and which parameters weight decay leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mambair.layers import VSSBlock
from mambair.models.optimizers import build_optimizer, decays
from mambair.system.errors import RequestError


class Scaled(nn.Module):
    """A parameter of every kind the rule names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.A_logs = nn.Parameter(torch.zeros(4, 2))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.skip_scale = nn.Parameter(torch.ones(1, 4))
        self.marked = nn.Parameter(torch.zeros(2, 2))
        self.marked._no_weight_decay = True  # type: ignore[attr-defined]
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def decaying(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if decays(name, parameter)}


def test_rule_on_every_kind() -> None:
    assert decaying(Scaled()) - {"frozen"} == {"linear.weight"}


def test_only_matrices_and_kernels_of_a_vss_block_decay() -> None:
    block = VSSBlock(hidden_dim=32, d_state=4)
    for name, parameter in block.named_parameters():
        leaf = name.rpartition(".")[2]
        expected = leaf in {"weight", "x_proj_weight", "dt_projs_weight"} and parameter.ndim > 1
        assert decays(name, parameter) == expected, name


def test_adamw_shrinks_the_decaying_ones_only() -> None:
    net = Scaled()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    optimizer = build_optimizer({"type": "AdamW", "lr": 0.1, "weight_decay": 0.5, "betas": [0.9, 0.99]}, net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        expected = 0.95 if name == "linear.weight" else 1.0  # 1 - lr x weight_decay
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))


@pytest.mark.parametrize(("name", "groups"), [("Adam", 1), ("AdamW", 2), ("SGD", 2)])
def test_groups_hold_every_trained_parameter_once(name: str, groups: int) -> None:
    net = Scaled()
    optimizer = build_optimizer({"type": name, "lr": 1e-3}, net)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(optimizer.param_groups) == groups
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("opt", "text"),
    [
        ({"type": "Lion", "lr": 1e-4}, "one of Adam, AdamW, SGD, Muon, Adan, SOAP, ScheduleFreeAdamW, found 'Lion'"),
        ({"type": "Adam", "lr": 1e-4, "beta": [0.9, 0.99]}, "has no argument beta; it has lr, betas"),
    ],
    ids=["type", "argument"],
)
def test_faults(opt: dict, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        build_optimizer(opt, nn.Linear(2, 2))


def test_nothing_to_train_is_a_fault() -> None:
    with pytest.raises(RequestError, match="nothing to train"):
        build_optimizer({"type": "Adam"}, nn.Linear(2, 2).requires_grad_(False))
