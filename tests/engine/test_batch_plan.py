"""One meaning of batch size, however many processes share it."""

from __future__ import annotations

import pytest

from mambair.engine.batch_plan import BatchError, BatchPlan, plan_batch


def options(data: dict, accumulation: int = 1) -> dict:
    return {"datasets": {"train": data}, "train": {"accumulation": accumulation}}


@pytest.mark.parametrize(
    ("data", "accumulation", "world_size", "expected"),
    [
        ({"total_batch_size": 32}, 1, 1, BatchPlan(32, 32, 32)),
        ({"total_batch_size": 32}, 1, 8, BatchPlan(32, 4, 4)),
        ({"total_batch_size": 32}, 4, 2, BatchPlan(32, 16, 4)),
        ({"batch_size_per_gpu": 4}, 1, 8, BatchPlan(32, 4, 4)),
        ({"batch_size_per_gpu": 4, "total_batch_size": 8}, 1, 1, BatchPlan(8, 8, 8)),
    ],
    ids=["alone", "eight processes", "accumulated", "BasicSR's key", "the total wins"],
)
def test_shares(data: dict, accumulation: int, world_size: int, expected: BatchPlan) -> None:
    assert plan_batch(options(data, accumulation), world_size) == expected


def test_plan_says_what_it_means() -> None:
    told = str(plan_batch(options({"total_batch_size": 32}, 4), 2))
    assert told == "32 images a step = 2 process(es) x 4 pass(es) x 4"


@pytest.mark.parametrize(
    ("data", "world_size", "text"),
    [({"total_batch_size": 6}, 4, "cannot be shared out to 4 process.* multiple of 4"), ({}, 1, "is missing")],
    ids=["not divisible", "missing"],
)
def test_faults(data: dict, world_size: int, text: str) -> None:
    with pytest.raises(BatchError, match=text):
        plan_batch(options(data), world_size)
