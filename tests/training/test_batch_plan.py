"""One meaning of batch size, however many processes share it."""

from __future__ import annotations

import pytest

from mambair.system.errors import RequestError
from mambair.training.batch_plan import BatchPlan, plan_batch


def options(data: dict, accumulation: int = 1, images_per_pass: int | None = None) -> dict:
    train = {"accumulation": accumulation, "images_per_pass": images_per_pass}
    return {"datasets": {"train": data}, "train": train}


@pytest.mark.parametrize(
    ("data", "accumulation", "world_size", "expected"),
    [
        ({"total_batch_size": 32}, 1, 1, BatchPlan(32, 32, 32)),
        ({"total_batch_size": 32}, 1, 8, BatchPlan(32, 4, 4)),
        ({"total_batch_size": 32}, 4, 2, BatchPlan(32, 16, 4)),
    ],
    ids=["alone", "eight processes", "accumulated"],
)
def test_shares(data: dict, accumulation: int, world_size: int, expected: BatchPlan) -> None:
    assert plan_batch(options(data, accumulation), world_size) == expected


def test_plan_says_what_it_means() -> None:
    told = str(plan_batch(options({"total_batch_size": 32}, 4), 2))
    assert told == "32 images a step = 2 process(es) x 4 pass(es) x 4"


def test_a_batch_that_cannot_be_shared_out() -> None:
    with pytest.raises(RequestError, match=r"cannot be shared out to 4 process.* multiple of 4"):
        plan_batch(options({"total_batch_size": 6}), 4)


@pytest.mark.parametrize(
    ("total", "world_size", "at_once", "passes"),
    [(32, 1, 4, 8), (32, 8, 4, 1), (32, 2, 5, 4), (32, 1, 64, 1), (12, 1, 5, 3), (7, 1, 3, 7)],
    ids=["one of eight", "all eight", "not divisible", "all at once", "thirds", "a prime"],
)
def test_accumulation_follows_from_the_processes(total: int, world_size: int, at_once: int, passes: int) -> None:
    plan = plan_batch(options({"total_batch_size": total}, images_per_pass=at_once), world_size)
    assert (plan.total, plan.passes) == (total, passes)
    assert plan.per_pass <= at_once and plan.per_pass * passes * world_size == total


def test_both_ways_to_say_the_passes() -> None:
    with pytest.raises(RequestError, match="keep one"):
        plan_batch(options({"total_batch_size": 8}, 2, 4), 1)
