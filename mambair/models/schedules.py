"""Learning-rate schedules as plain functions of the iteration, in BasicSR's vocabulary.

BasicSR's schedulers compute each rate from the one before. Ours are closed forms, so a resumed run, a skipped step or a
changed milestone cannot leave a wrong rate behind. `rate(done, base)`: `done` is the number of finished iterations.
"""

from __future__ import annotations

import bisect
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mambair.registry import arguments_of
from mambair.system.errors import RequestError

Schedule = Callable[[int, float], float]


def multi_step(
    milestones: Sequence[int],
    gamma: float = 0.1,
    restarts: Sequence[int] = (0,),
    restart_weights: Sequence[float] = (1.0,),
) -> Schedule:
    """Multiply the rate by ``gamma`` at each milestone; a restart sets it to base x weight and counts anew."""
    if len(restarts) != len(restart_weights):
        raise RequestError(f"restarts has {len(restarts)} entries and restart_weights {len(restart_weights)}: one each")
    steps = sorted(milestones)
    starts = sorted(zip(restarts, restart_weights, strict=True))

    def rate(done: int, base: float) -> float:
        began, weight = max((start for start in starts if start[0] <= done), default=(-1, 1.0))
        # a milestone at the very iteration of a restart does nothing, as in BasicSR
        passed = bisect.bisect_right(steps, done) - bisect.bisect_right(steps, began)
        return base * weight * gamma**passed

    return rate


def cosine(
    periods: Sequence[int],
    restart_weights: Sequence[float] = (1.0,),
    eta_min: float | Sequence[float] = 0.0,
) -> Schedule:
    """Half a cosine from base x weight down to ``eta_min`` in each period; afterwards the last ``eta_min``."""
    floors = list(eta_min) if isinstance(eta_min, Sequence) else [eta_min] * len(periods)
    if not len(periods) == len(restart_weights) == len(floors):
        raise RequestError(
            f"periods, restart_weights and eta_mins need one entry per period, found {len(periods)}, "
            f"{len(restart_weights)} and {len(floors)}"
        )
    if not periods or min(periods) < 1:
        raise RequestError(f"periods must be positive numbers of iterations, found {list(periods)}")
    ends = list(itertools.accumulate(periods))

    def rate(done: int, base: float) -> float:
        # the last iteration of a period still belongs to it (BasicSR's convention)
        index = min(bisect.bisect_left(ends, done), len(ends) - 1)
        progress = min((done - (ends[index] - periods[index])) / periods[index], 1.0)
        floor = floors[index]
        return floor + restart_weights[index] * 0.5 * (base - floor) * (1 + math.cos(math.pi * progress))

    return rate


def cyclic_cosine(
    periods: Sequence[int], restart_weights: Sequence[float] = (1.0,), eta_mins: Sequence[float] = (0.0,)
) -> Schedule:
    """The same with a floor per period: Restormer's schedule, which MambaIR's real-denoising recipe uses."""
    return cosine(periods, restart_weights, tuple(eta_mins))


def single_cosine(T_max: int, eta_min: float = 0.0) -> Schedule:
    """torch's CosineAnnealingLR: one half cosine over ``T_max`` iterations."""
    return cosine((T_max,), (1.0,), eta_min)


def constant() -> Schedule:
    """The base rate throughout."""
    return lambda done, base: base


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "MultiStepLR": multi_step,
    "MultiStepRestartLR": multi_step,
    "CosineAnnealingLR": single_cosine,
    "CosineAnnealingRestartLR": cosine,
    "CosineAnnealingRestartCyclicLR": cyclic_cosine,
    "ConstantLR": constant,
}


def build_schedule(opt: Mapping[str, Any] | None, total_iter: int) -> Schedule:
    """Build the schedule of an option file's ``train: scheduler:`` block; none means a constant rate.

    Args:
        opt: ``type`` and the arguments of that schedule.
        total_iter: length of the training; CosineAnnealingLR's ``T_max`` where that is not given.

    Raises:
        RequestError: an unknown type, or arguments that do not fit it.
    """
    if not opt:
        return constant()
    name = opt.get("type")
    if name not in SCHEDULES:
        raise RequestError(f"scheduler type must be one of {', '.join(SCHEDULES)}, found {name!r}")
    arguments = arguments_of(opt)
    if name == "CosineAnnealingLR" and arguments.get("T_max") is None:
        arguments["T_max"] = total_iter
    try:
        inspect.signature(SCHEDULES[name]).bind(**arguments)
    except TypeError as error:
        raise RequestError(f"scheduler {name}: {error}") from None
    return SCHEDULES[name](**arguments)


def warmed_up(rate: float, iteration: int, warmup_iter: int) -> float:
    """Scale ``rate`` linearly up to its full value at iteration ``warmup_iter`` (-1: no warm-up)."""
    return rate * iteration / warmup_iter if iteration < warmup_iter else rate
