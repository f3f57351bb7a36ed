"""Threads that hand over, wait and give up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from mambair.folders.strip_queue import StripQueue
from mambair.inference.limits import Cancelled, ResourceLimiter


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_all_comes_through_in_order() -> None:
    queue: StripQueue[int] = StripQueue()

    def give() -> None:
        for number in range(50):
            queue.put(number)
        queue.finish()

    thread = in_thread(give)
    assert list(queue) == list(range(50))
    thread.join(5)


def test_who_gives_waits_for_who_takes() -> None:
    queue: StripQueue[int] = StripQueue()
    given: list[int] = []

    def give() -> None:
        with contextlib.suppress(Cancelled):
            for number in range(9):
                queue.put(number)
                given.append(number)

    in_thread(give)
    time.sleep(0.05)
    assert len(given) == 2, "no more than that waits in memory"
    queue.abandon()


@pytest.mark.parametrize("side", ["giver", "taker"])
def test_giving_up_frees_the_other_side(side: str) -> None:
    queue: StripQueue[int] = StripQueue()
    caught: list[str] = []

    def other() -> None:
        try:
            if side == "taker":
                while True:
                    queue.put(1)
            else:
                for _ in queue:
                    pass
        except Cancelled:
            caught.append(side)

    thread = in_thread(other)
    time.sleep(0.02)
    queue.abandon()
    thread.join(5)
    assert caught == [side]


def test_a_budget_keeps_within_its_bytes() -> None:
    budget, taken = ResourceLimiter(10), []

    def take() -> None:
        for amount in (6, 3, 5, 50, 1):
            budget.take(amount)
            taken.append(amount)

    in_thread(take)

    def settle(expected: list[int]) -> None:
        deadline = time.monotonic() + 5
        while taken != expected and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.01)
        assert taken == expected

    settle([6, 3])
    budget.give(6)
    settle([6, 3, 5])
    budget.give(3)
    settle([6, 3, 5])  # 50 is more than there is at all: it waits until it is alone
    budget.give(5)
    settle([6, 3, 5, 50])
    budget.give(50)
    settle([6, 3, 5, 50, 1])


def test_a_closed_budget_lets_nobody_wait() -> None:
    budget = ResourceLimiter(10)
    budget.take(10)
    caught: list[bool] = []

    def take() -> None:
        try:
            budget.take(1)
        except Cancelled:
            caught.append(True)

    thread = in_thread(take)
    budget.close()
    thread.join(5)
    assert caught == [True]
