"""Several processes: the variables of the launcher, and two gloo processes against one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambair.system.distributed import Processes, first_node, processes_of, slurm_variables
from mambair.system.errors import RequestError

WORKER = """
import sys
from pathlib import Path

import torch

from mambair.system.distributed import start_processes
from mambair.losses import build_loss
from mambair.models.restoration_model import RestorationModel
from mambair.registry import ARCH_REGISTRY


class Net(torch.nn.Conv2d):
    upscale, in_chans = 1, 3

    def __init__(self):
        super().__init__(3, 3, 3, padding=1)


class Images:
    opt = {"name": "five"}

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image = torch.full((3, 6, 6), index / 5)
        return {"lq": image, "gt": image, "lq_path": f"{'abcde'[index]}/same.png"}


class Damaged(Images):
    opt = {"name": "damaged"}

    def __getitem__(self, index):
        if index == 3:
            raise ValueError("no image")
        return super().__getitem__(index)


class Loader:
    dataset = Images()


class DamagedLoader:
    dataset = Damaged()


ARCH_REGISTRY.register(Net, name="Net")
folder, reduction, accumulation = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
processes = start_processes(use_gpu=False)
torch.manual_seed(0)
opt = {
    "name": "two", "is_train": True, "scale": 1, "num_gpu": 0, "network_g": {"type": "Net"},
    "rank": processes.rank, "world_size": processes.world_size,
    "path": {"visualization": str(folder / f"images_{processes.world_size}"), "models": str(folder)},
    "train": {"total_iter": 9, "optim_g": {"type": "SGD", "lr": 0.1}, "accumulation": accumulation,
              "pixel_opt": {"type": "L1Loss", "reduction": reduction}},
    "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
}
model = RestorationModel(opt)
data = torch.rand(2, 8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
share = 8 // processes.world_size
own = slice(processes.rank * share, (processes.rank + 1) * share)
model.feed_data({"lq": data[0, own], "gt": data[1, own]})
model.optimize_parameters(1)
log = model.get_current_log()
model.validation(Loader(), 1, None, save_img=True)
psnr, baseline = model.metric_results["psnr"], model.baselines["five"]["psnr"]
model.validation(DamagedLoader(), 1, None)
poisoned = data[0, own].clone()
if processes.rank == processes.world_size - 1:
    poisoned[0, 0, 0, 0] = float("nan")
before = model.net_g.weight.detach().clone()
model.feed_data({"lq": poisoned, "gt": data[1, own]})
model.optimize_parameters(2)
result = {
    "gradient": model.net_g.weight.grad, "weight": model.net_g.weight.detach(), "loss": log["l_pix"],
    "psnr": psnr, "baseline": baseline, "left": model.metric_results, "failed": sorted(model._reported),
    "skipped": model.guard.total,
    "unchanged": torch.equal(before, model.net_g.weight),
}
result["any"] = processes.any_true(processes.rank == 1)
torch.save(result, folder / f"{processes.world_size}_{processes.rank}.pt")
processes.close()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_group(program: Path, world_size: int, arguments: list[str], repository: Path) -> list[dict]:
    """Run ``program`` in ``world_size`` processes with torchrun's variables; returns what each one saved."""
    shared = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = {**os.environ, **shared, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    group = [
        subprocess.Popen(
            [sys.executable, str(program), str(program.parent), *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]
    assert [process.wait(timeout=120) for process in group] == [0] * world_size
    files = [program.parent / f"{world_size}_{rank}.pt" for rank in range(world_size)]
    return [torch.load(path, weights_only=True) for path in files]


@pytest.mark.parametrize(
    ("reduction", "accumulation"),
    [("mean", 1), pytest.param("sum", 2, marks=pytest.mark.slow)],
    ids=["mean", "sum, accumulated"],
)
def test_two_processes_equal_one(tmp_path: Path, repository: Path, reduction: str, accumulation: int) -> None:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    arguments = [reduction, str(accumulation)]
    (alone,) = run_group(program, 1, arguments, repository)
    both = run_group(program, 2, arguments, repository)
    for one in both:
        # the same float32 terms, summed in another order
        torch.testing.assert_close(one["weight"], alone["weight"], rtol=1e-6, atol=1e-6)
        assert one["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert one["psnr"] == pytest.approx(alone["psnr"], rel=1e-6)
        assert one["baseline"] == alone["baseline"]
        assert one["left"] == alone["left"] == {}, "metrics of some of the images are no metrics of the set"
        assert one["failed"] == alone["failed"] == ["damaged, image 4: no image"]
        assert one["any"] and one["skipped"] == 1 and one["unchanged"]
    assert torch.equal(both[0]["weight"], both[1]["weight"])
    images = [
        {path.name: path.read_bytes() for path in (tmp_path / f"images_{count}" / "five").iterdir()} for count in (1, 2)
    ]
    # images of one stem keep apart, and are named and restored as one process does it
    assert sorted(images[0]) == ["b_same_1.png", "c_same_1.png", "d_same_1.png", "e_same_1.png", "same_1.png"]
    assert images[0] == images[1]
    assert alone["skipped"] == 1 and alone["unchanged"] and not alone["any"]


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}], ids=["nothing", "torchrun with one"])
def test_alone(environment: dict[str, str]) -> None:
    processes = processes_of(environment)
    assert processes == Processes() and processes.is_main and not processes.distributed
    assert processes.any_true(True) and not processes.any_true(False)
    processes.barrier()
    processes.close()


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not; start with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "first"}, "must be whole numbers"),
    ],
    ids=["incomplete", "no number"],
)
def test_faults(environment: dict[str, str], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        processes_of(environment)


SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_slurm_s_own_variables() -> None:
    variables = slurm_variables(SLURM)
    assert processes_of(variables) == Processes(rank=5, world_size=8, local_rank=1)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("gpu07", "23456")
    assert slurm_variables({**SLURM, "MASTER_ADDR": "10.0.0.1"})["MASTER_ADDR"] == "10.0.0.1"


def test_slurm_without_srun_is_explained() -> None:
    with pytest.raises(RequestError, match="SLURM_PROCID are not set; start with srun"):
        slurm_variables({name: value for name, value in SLURM.items() if name != "SLURM_PROCID"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node1", "node1"), ("node1,node2", "node1"), ("n[003-010,12],m1", "n003"), ("a-b[1,3]", "a-b1")],
)
def test_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_nothing_of_a_node_list_is_run() -> None:
    assert first_node("$(touch trap)") == "$(touch trap)"
