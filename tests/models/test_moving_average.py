"""The moving average of weights against its formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mambair.models.moving_average import MovingAverage


def test_three_updates_by_hand() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(net, decay=0.9)
    expected = copy.deepcopy(net.state_dict())
    for step in range(1, 4):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(step)
        net[1].running_mean.add_(step)
        for name, parameter in net.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * parameter.detach()
        average.update(net)
    expected["1.running_mean"] = net[1].running_mean
    for name, value in average.net.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)


def test_average_is_apart_from_the_network() -> None:
    net = nn.Linear(2, 2).train()
    average = MovingAverage(net, decay=0.5)
    assert not average.net.training and net.training
    assert not any(parameter.requires_grad for parameter in average.net.parameters())
    assert average.net.weight.data_ptr() != net.weight.data_ptr()


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_decay_range(decay: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        MovingAverage(nn.Linear(1, 1), decay)
