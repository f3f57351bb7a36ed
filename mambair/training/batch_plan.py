"""One meaning of batch size: how many images an optimiser step takes in all, and each process's share of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mambair.system.errors import RequestError


@dataclass(frozen=True)
class BatchPlan:
    """Images per optimiser step.

    Attributes:
        total: over all processes.
        per_process: what each process loads for one step.
        per_pass: what goes through the network at once; ``per_process`` / accumulation.
    """

    total: int
    per_process: int
    per_pass: int

    @property
    def passes(self) -> int:
        """How often a process goes through the network for one step: the accumulation."""
        return self.per_process // self.per_pass

    def __str__(self) -> str:
        processes = self.total // self.per_process
        return f"{self.total} images a step = {processes} process(es) x {self.passes} pass(es) x {self.per_pass}"


def plan_batch(opt: Mapping[str, Any], world_size: int) -> BatchPlan:
    """Share out ``datasets.train.total_batch_size``, which the options always state.

    The passes are ``train.accumulation``, or follow from ``train.images_per_pass``: as few as keep to it.

    Args:
        opt: checked options.
        world_size: number of processes.

    Raises:
        RequestError: a batch that processes x accumulation does not divide, or both ways to say the passes.
    """
    data, train = opt["datasets"]["train"], opt["train"]
    accumulation, at_once = int(train.get("accumulation", 1)), train.get("images_per_pass")
    if at_once and accumulation > 1:
        raise RequestError("train: accumulation and images_per_pass are both given; keep one, the other follows")
    total = int(data["total_batch_size"])
    if total % (world_size * accumulation):
        raise RequestError(
            f"datasets.train: total_batch_size: {total} images cannot be shared out to {world_size} process(es) x "
            f"train: accumulation {accumulation}; choose a multiple of {world_size * accumulation}"
        )
    per_process = total // world_size
    if at_once:
        accumulation = next(n for n in range(1, per_process + 1) if per_process % n == 0 and per_process <= n * at_once)
    return BatchPlan(total, per_process, per_process // accumulation)
