"""The moving average of weights against its formula."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn

from mambair.models.ema import MovingAverage


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
        average.update(net, step)
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


def test_warm_up_forgets_the_random_start() -> None:
    """After the weights have settled, the average of a short training is near them; without warm-up it is not."""
    distances = {}
    for warmup in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(8, 8)
        average = MovingAverage(net, decay=0.999, warmup=warmup)
        start = net.weight.detach().clone()
        with torch.no_grad():
            net.weight.add_(1.0)
        for step in range(1, 201):
            average.update(net, step)
        weights = [layer.weight.detach() for layer in (net, average.net)]
        distances[warmup] = float((weights[0] - weights[1]).abs().mean() / (weights[0] - start).abs().mean())
    assert distances[False] == pytest.approx(0.999**200, rel=1e-3)
    assert distances[True] < 1e-6


def test_the_decay_depends_on_the_step_only_and_reaches_the_one_asked_for() -> None:
    average = MovingAverage(nn.Linear(1, 1), decay=0.99, warmup=True)
    assert [average.decay_at(step) for step in (1, 8, 10_000)] == [2 / 11, 0.5, 0.99]
    assert MovingAverage(nn.Linear(1, 1), decay=0.99).decay_at(1) == 0.99


@pytest.mark.parametrize(
    ("decay", "warmup", "steps", "told"),
    [(0.999, False, 1000, "37 % of the random start"), (0.999, False, 10_000, ""), (0.999, True, 1000, "")],
    ids=["short", "long", "warm-up"],
)
def test_an_average_that_will_be_of_no_use_is_announced(
    decay: float, warmup: bool, steps: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        MovingAverage(nn.Linear(1, 1), decay, warmup=warmup).warn_if_short(steps)
    assert told in caplog.text and bool(told) == bool(caplog.records)
