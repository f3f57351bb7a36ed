"""Adversarial training in two processes (gloo, CPU): both end with the same networks, averages and optimisers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

PROGRAM = """
import os, sys
import torch
from mambair.train import main
from mambair.training.loop import Loop

finish = Loop.finish


def finish_and_keep(loop):
    finish(loop)
    model = loop.model
    state = {"g": model.net_g, "d": model.net_d, "average": model.average.net}
    state = {name: net.state_dict() for name, net in state.items()}
    state["optimizers"] = [optimizer.state_dict()["state"] for optimizer in model.optimizers]
    torch.save(state, f"rank{os.environ['RANK']}.pt")


Loop.finish = finish_and_keep
sys.exit(main(sys.argv[1:]))
"""
CHANGES = [
    *("num_gpu=0", "path:pretrain_network_g=~", "logger:print_freq=1", "val:val_freq=4"),
    *("datasets:train:dataroot_gt=datasets/example/gt", "datasets:val:dataroot_gt=datasets/example/val_gt"),
    *("datasets:train:gt_size=32", "datasets:train:degraded_size=64", "datasets:train:total_batch_size=4"),
    "datasets:train:num_worker_per_gpu=0",
    *("network_g:embed_dim=8", "network_g:depths=[1]", "network_g:d_state=2", "network_d:num_feat=4"),
    *("train:total_iter=4", "train:scheduler=~", "train:perceptual_opt:layer_weights={conv1_2: 1.0}"),
    *("train:r1_reg_weight=1.0", "train:net_d_reg_every=2", "train:accumulation=2"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("with_vgg19")
@pytest.mark.parametrize("model", ["RealESRGANModel", "ESRGANModel"])
def test_ranks_stay_equal(model: str, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    option_file = repository / "options/train/train_MambaIR_small_RealSR_x2_stage2.yml"
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    arguments = ["-opt", str(option_file), "--launcher", "pytorch", "--force_yml", f"model_type={model}", *CHANGES]
    paths = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-m", *launcher, "program.py", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
        timeout=600,
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    ours, theirs = tensors(first), tensors(second)
    assert len(ours) == len(theirs) > 100
    assert all(torch.equal(a, b) and bool(a.isfinite().all()) for a, b in zip(ours, theirs, strict=True))
    models = tmp_path / "experiments/MambaIR_small_RealSR_x2_stage2/models"
    saved = torch.load(models / "net_d_latest.pth", weights_only=True)["params"]
    assert all(torch.equal(value, first["d"][name]) for name, value in saved.items())
    steps = [state["step"] for optimizer in first["optimizers"] for state in optimizer.values()]
    assert {int(step) for step in steps} == {4}, "both networks took every step"


def tensors(found: Any) -> list[Tensor]:
    """All tensors of nested containers, in order."""
    if isinstance(found, Tensor):
        return [found]
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [tensor for each in inner for tensor in tensors(each)]
