"""Evaluation of one data set by all processes together: each takes every n-th image, and all learn all results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mambair.engine.processes import Processes
from mambair.evaluation import Evaluation, evaluate


class EveryNth:
    """The images first, first + step, first + 2 step, ... of a data set.

    Attributes:
        opt: the data set's own options, which name it.
    """

    def __init__(self, dataset: Any, first: int, step: int) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, "opt", {})
        self._numbers = range(first, len(dataset), step)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.dataset[self._numbers[index]]


def evaluate_shared(
    restore: Callable[[Tensor], Tensor],
    dataset: Any,
    metrics: Mapping[str, Mapping[str, Any]],
    processes: Processes,
    *,
    save_folder: Path | None = None,
    suffix: str | None = None,
) -> Evaluation:
    """`mambair.evaluation.evaluate` over all processes; each returns the whole, in the order of the data set."""
    if not processes.distributed:
        return evaluate(restore, dataset, metrics, save_folder=save_folder, suffix=suffix, progress=False)
    share = EveryNth(dataset, processes.rank, processes.world_size)
    own = evaluate(restore, share, metrics, save_folder=save_folder, suffix=suffix, progress=False)
    gathered: list[list[dict[str, Any]]] = [[] for _ in range(processes.world_size)]
    dist.all_gather_object(gathered, own.per_image)
    count, step = len(dataset), processes.world_size
    in_order = [gathered[number % step][number // step] for number in range(count)]
    return Evaluation(own.dataset, own.metrics, in_order)
