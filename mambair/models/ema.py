"""Averages of a network's weights, which are what validation and the saved ``params_ema`` use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mambair.options.optimizer_library import AVERAGING

logger = logging.getLogger(__name__)

NOTICEABLE = 0.01


class MovingAverage:
    """A second copy of ``net`` whose weights follow it: average = decay x average + (1 - decay) x weight.

    Args:
        net: the network being trained.
        decay: between 0 and 1; BasicSR's usual value is 0.999.
        warmup: at step n use no more than (1 + n) / (10 + n), the rule of tf.train.ExponentialMovingAverage. Otherwise
            the random weights of the start weigh decay^n in the average: a third after 1000 steps of 0.999.

    Raises:
        ValueError: decay outside of (0, 1).
    """

    def __init__(self, net: nn.Module, decay: float, *, warmup: bool = False) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, found {decay}")
        self.decay = decay
        self.warmup = warmup
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    def decay_at(self, step: int) -> float:
        """The decay of a step, counted from 1: a function of its number, so that a resumed run goes on alike."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def warn_if_short(self, steps: int) -> None:
        """Warn if an average that starts from random weights will still hold a good part of them after ``steps``."""
        share = 0.0 if self.warmup else self.decay**steps
        if share > NOTICEABLE:
            logger.warning(
                "train: ema_decay: %g over %d steps leaves %.0f %% of the random start in the averaged weights, which "
                "validation uses; set train: ema_warmup: true, or a smaller decay",
                self.decay,
                steps,
                100 * share,
            )

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take step number ``step`` towards the weights of ``net``; its buffers are copied as they are."""
        averages: list[Tensor] = list(self.net.parameters())
        step_towards = get_ema_multi_avg_fn(self.decay_at(step))
        step_towards(averages, [weight.detach() for weight in net.parameters()], None)
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)


class ScheduleFreeAverage:
    """A second copy of ``net`` with the averaged weights x of a schedule-free optimiser.

    The optimiser trains at y = beta x + (1 - beta) z and keeps z. Its own switch between y and x rounds the weights
    each time; a copy leaves them alone, so that neither validation nor a checkpoint changes the training.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._optimizer = optimizer

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take x of the optimiser after its step; parameters it does not train and buffers are copied as they are."""
        averages = dict(zip(net.parameters(), self.net.parameters(), strict=True))
        for weight, average in averages.items():
            average.copy_(weight)
        for group in self._optimizer.param_groups:
            for weight in group["params"]:
                if "z" in self._optimizer.state[weight]:
                    z = self._optimizer.state[weight]["z"]
                    averages[weight].lerp_(z, 1 - 1 / group["betas"][0])
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)


def build_average(
    train_opt: Mapping[str, Any], net: nn.Module, optimizer: torch.optim.Optimizer, *, is_random: bool
) -> MovingAverage | ScheduleFreeAverage | None:
    """The average that ``train`` asks for: by ``ema_decay``, or that of a schedule-free optimiser.

    Args:
        is_random: the network starts from random weights.
    """
    if train_opt["optim_g"]["type"] in AVERAGING:
        return ScheduleFreeAverage(net, optimizer)
    if not train_opt.get("ema_decay"):
        return None
    average = MovingAverage(net, train_opt["ema_decay"], warmup=train_opt.get("ema_warmup", False))
    if is_random:
        average.warn_if_short(int(train_opt["total_iter"]))
    return average
