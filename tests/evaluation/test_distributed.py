"""How a validation set is shared out; two real processes are in tests/system/test_distributed.py."""

from __future__ import annotations

from typing import Any

import pytest

from mambair.evaluation.distributed import DistributedSubset


class Numbers(list[Any]):
    """A data set of numbers."""

    opt = {"name": "numbers"}  # noqa: RUF012


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_image_is_taken_once(count: int, processes: int) -> None:
    shares = [DistributedSubset(Numbers(range(count)), rank, processes) for rank in range(processes)]
    taken = [[share[place] for place in range(len(share))] for share in shares]
    assert sorted(number for own in taken for number in own) == list(range(count))
    # what evaluate_shared relies on when it puts the results in order again
    assert [taken[number % processes][number // processes] for number in range(count)] == list(range(count))


def test_a_share_keeps_the_name() -> None:
    assert DistributedSubset(Numbers([1]), 0, 2).opt == {"name": "numbers"}
