"""Learning-rate schedules against BasicSR's own (where it is installed), against torch's, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mambair.models.schedules import build_schedule, warmed_up
from mambair.registry import basicsr_installed, import_basicsr
from mambair.system.errors import RequestError

BASE = 2e-4
OPTIONS = {
    "multi-step": {"type": "MultiStepLR", "milestones": [5, 12, 12, 15], "gamma": 0.5},
    "multi-step restart": {
        "type": "MultiStepRestartLR",
        "milestones": [3, 14],
        "gamma": 0.1,
        "restarts": [0, 10],
        "restart_weights": [1, 0.5],
    },
    "cosine restart": {
        "type": "CosineAnnealingRestartLR",
        "periods": [8, 5, 12],
        "restart_weights": [1, 0.5, 0.25],
        "eta_min": 1e-7,
    },
}


def rates(opt: dict | None, count: int) -> list[float]:
    schedule = build_schedule(opt, total_iter=count)
    return [schedule(done, BASE) for done in range(count)]


@pytest.mark.parametrize("name", OPTIONS)
def test_equal_to_basicsr(name: str) -> None:
    if not basicsr_installed():
        pytest.skip("basicsr is not installed")
    import_basicsr()
    from basicsr.models import lr_scheduler

    arguments = dict(OPTIONS[name])
    kind = arguments.pop("type")
    kind = "MultiStepRestartLR" if kind == "MultiStepLR" else kind
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    theirs = getattr(lr_scheduler, kind)(optimizer, **arguments)
    expected = []
    for _ in range(25):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # theirs multiplies step by step, ours once
    assert rates(OPTIONS[name], 25) == pytest.approx(expected, rel=1e-12)


def test_milestones_by_hand() -> None:
    found = rates({"type": "MultiStepLR", "milestones": [2, 4], "gamma": 0.5}, 6)
    assert found == pytest.approx([BASE, BASE, BASE / 2, BASE / 2, BASE / 4, BASE / 4])


def test_cosine_reaches_the_floor_and_stays() -> None:
    schedule = build_schedule({"type": "CosineAnnealingLR", "eta_min": 1e-6}, total_iter=10)
    assert schedule(0, BASE) == pytest.approx(BASE)
    assert schedule(5, BASE) == pytest.approx((BASE + 1e-6) / 2)
    assert schedule(10, BASE) == schedule(99, BASE) == pytest.approx(1e-6)


def test_cyclic_cosine_of_the_real_denoising_recipe() -> None:
    opt = {
        "type": "CosineAnnealingRestartCyclicLR",
        "periods": [92, 208],
        "restart_weights": [1, 1],
        "eta_mins": [BASE, 1e-6],
    }
    schedule = build_schedule(opt, total_iter=300)
    assert [schedule(done, BASE) for done in (0, 50, 92)] == pytest.approx([BASE] * 3)
    assert schedule(92 + 104, BASE) == pytest.approx((BASE + 1e-6) / 2)
    assert schedule(300, BASE) == pytest.approx(1e-6)


def test_no_scheduler_is_a_constant_rate() -> None:
    assert rates(None, 4) == [BASE] * 4


def test_warm_up_rises_to_the_full_rate_and_not_past_it() -> None:
    assert [warmed_up(BASE, iteration, 4) for iteration in (1, 2, 3, 4, 5)] == pytest.approx(
        [BASE / 4, BASE / 2, BASE * 3 / 4, BASE, BASE]
    )
    assert warmed_up(BASE, 1, -1) == BASE


@pytest.mark.parametrize(
    ("opt", "text"),
    [
        ({"type": "StepLR"}, "one of MultiStepLR, .* found 'StepLR'"),
        ({"type": "MultiStepLR", "milestone": [1]}, "MultiStepLR: .*milestone"),
        ({"type": "CosineAnnealingRestartLR", "periods": [4, 4]}, "one entry per period, found 2, 1"),
        ({"type": "CosineAnnealingRestartLR", "periods": [0]}, "positive numbers of iterations"),
        ({"type": "MultiStepLR", "milestones": [], "restarts": [0, 5]}, "restarts has 2 entries"),
    ],
    ids=["type", "argument", "lengths", "zero period", "restarts"],
)
def test_faults(opt: dict, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        build_schedule(opt, total_iter=10)


def test_rates_do_not_depend_on_history() -> None:
    schedule = build_schedule(OPTIONS["multi-step restart"], total_iter=25)
    assert schedule(14, BASE) == pytest.approx(BASE * 0.5 * 0.1)
    assert math.isclose(schedule(3, BASE), BASE * 0.1)
