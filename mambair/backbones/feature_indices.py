"""Which feature maps are asked for, in the ways timm allows to say it."""

from __future__ import annotations

from collections.abc import Sequence


def resolve_indices(count: int, indices: int | Sequence[int] | None) -> list[int]:
    """Places in 0 ... count - 1, rising, without repeats.

    Args:
        count: how many maps there are.
        indices: their places (negative ones count from the end); a number n for the last n; None for all.

    Raises:
        ValueError: a place that does not exist, or none at all.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise ValueError(f"the last {indices} feature maps are asked for, there are {count}")
        return list(range(count - indices, count))
    wrong = [i for i in indices if not -count <= i < count]
    if wrong or not indices:
        raise ValueError(f"feature indices must lie in {-count} ... {count - 1}, got {list(indices)}")
    return sorted({i % count for i in indices})
