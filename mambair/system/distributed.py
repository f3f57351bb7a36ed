"""Which of how many processes this is, and the few things they tell each other."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mambair.system.errors import RequestError


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

    def gather_json(self, value: Any) -> list[Any]:
        """Return the ``value`` of every process, by rank; all must call it. Sent as JSON: nothing is unpickled."""
        if not self.distributed:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)
        size = self._tensor(len(own))
        sizes = [torch.zeros_like(size) for _ in range(self.world_size)]
        dist.all_gather(sizes, size)
        padded = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=size.device)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return [json.loads(part[: int(size)].cpu().numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def _tensor(self, value: int) -> Tensor:
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return torch.tensor(value, device=device)

    def close(self) -> None:
        """Leave the group."""
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for a task that srun started, out of slurm's own, which are read as plain values.

    MASTER_ADDR and MASTER_PORT are kept where they are set; otherwise the first node of the step, and a port made of
    the job's number, so that two jobs on a node do not meet.

    Raises:
        RequestError: slurm's variables are not there.
    """
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    missing = [name for name in (*names.values(), "SLURM_JOB_ID") if name not in environment]
    if missing:
        raise RequestError(f"--launcher slurm: {', '.join(missing)} are not set; start with srun, or use torchrun")
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "localhost"))
    variables = {name: environment[source] for name, source in names.items()}
    variables["MASTER_ADDR"] = environment.get("MASTER_ADDR", first_node(nodes))
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 40_000
    variables["MASTER_PORT"] = environment.get("MASTER_PORT", str(port))
    return variables


def first_node(nodes: str) -> str:
    """The first host of a list as slurm writes it: ``node[07-09,12],login1`` -> ``node07``."""
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if found is None:
        raise RequestError(f"SLURM_STEP_NODELIST holds no host: {nodes!r}; set MASTER_ADDR")
    return found[1] + (found[2] or "")


def start_processes(use_gpu: bool, *, launcher: str = "none") -> Processes:
    """Join the group that torchrun (or anything that sets the same variables) describes; alone without one.

    Args:
        use_gpu: NCCL and one GPU per local rank, or gloo on CPU.
        launcher: "slurm" takes slurm's variables in place of torchrun's; all others mean torchrun's.

    Raises:
        RequestError: WORLD_SIZE > 1 without the other variables, or a value that is no number.
    """
    if launcher == "slurm" and "WORLD_SIZE" not in os.environ:
        os.environ.update(slurm_variables(os.environ))
    processes = processes_of(os.environ)
    if processes.distributed:
        if use_gpu:
            torch.cuda.set_device(processes.local_rank)
        dist.init_process_group("nccl" if use_gpu else "gloo", timeout=datetime.timedelta(minutes=30))
    return processes


def processes_of(environment: Mapping[str, str]) -> Processes:
    """This process's place by RANK, WORLD_SIZE and LOCAL_RANK; nobody is joined.

    Raises:
        RequestError: as `start_processes`.
    """
    try:
        world_size = int(environment.get("WORLD_SIZE", "1"))
        if world_size <= 1:
            return Processes()
        return Processes(int(environment["RANK"]), world_size, int(environment["LOCAL_RANK"]))
    except KeyError as error:
        name = error.args[0]
        raise RequestError(f"WORLD_SIZE is set but {name} is not; start with torchrun, which sets all") from None
    except ValueError as error:
        raise RequestError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from None
