"""Which of how many processes this is, and the few things they tell each other."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


class LaunchError(ValueError):
    """The environment a launcher left behind does not describe a group of processes."""


@dataclass(frozen=True)
class Processes:
    """The group of training processes; `Processes()` is a process alone, and every method works for it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the log and the checkpoints."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    def barrier(self) -> None:
        """Wait for all."""
        if self.distributed:
            dist.barrier()

    def any_true(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; all learn the same answer."""
        if not self.distributed:
            return flag
        votes = self._tensor(int(flag))
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes.item())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes of a float tensor that has the same shape in each."""
        if not self.distributed:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def _tensor(self, value: int) -> Tensor:
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return torch.tensor(value, device=device)

    def close(self) -> None:
        """Leave the group."""
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


def start_processes(use_gpu: bool, environment: Mapping[str, str] = os.environ) -> Processes:
    """Join the group that torchrun (or anything that sets the same variables) describes; alone without one.

    Args:
        use_gpu: NCCL and one GPU per local rank, or gloo on CPU.
        environment: RANK, WORLD_SIZE and LOCAL_RANK are read from here; torch reads MASTER_ADDR and MASTER_PORT.

    Raises:
        LaunchError: WORLD_SIZE > 1 without the other variables, or a value that is no number.
    """
    try:
        world_size = int(environment.get("WORLD_SIZE", "1"))
        if world_size <= 1:
            return Processes()
        rank, local_rank = int(environment["RANK"]), int(environment["LOCAL_RANK"])
    except KeyError as error:
        raise LaunchError(
            f"WORLD_SIZE is set but {error.args[0]} is not; start with torchrun, which sets all"
        ) from None
    except ValueError as error:
        raise LaunchError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from None
    if use_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if use_gpu else "gloo", timeout=datetime.timedelta(minutes=30))
    return Processes(rank, world_size, local_rank)
