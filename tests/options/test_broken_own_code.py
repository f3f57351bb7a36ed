"""Networks, losses and data sets of a user that do not give what a training reads: told before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mambair.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY
from mambair.train import main

Write = Callable[..., Path]


class OwnNet(nn.Module):
    """Enlarges four times; ``fault`` says what it does wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault, self.only = fault, nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        if self.fault == "raises outside of training" and not self.training:
            raise KeyError("masks")
        result = self.only(x).repeat_interleave(4, 2).repeat_interleave(4, 3)
        other = {"a tuple": (result, x), "nothing": None, "no batch": result[0], "no gradient": result.detach()}
        return other.get(self.fault, result)


class OwnLoss(nn.Module):
    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def forward(self, output: Tensor, gt: Tensor) -> Any:
        loss = (output - gt).abs().mean()
        other = {"for each image": loss[None], "a pair": (loss, {}), "a float": 0.5, "detached": loss.detach()}
        return other.get(self.fault, loss)


class OwnData(torch.utils.data.Dataset):
    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        lq, gt = torch.full((3, 4, 4), 0.5), torch.full((3, 16, 16), 0.25)
        item: dict[str, Any] = {"lq": lq, "gt": gt, "lq_path": f"{index}.png", "gt_path": f"{index}.png"}
        fault = self.opt["fault"]
        if fault == "a pair":
            return lq, gt
        if fault == "raises":
            raise IndexError("out of range")
        changed = {"bytes": {"lq": lq.byte()}, "doubles": {"lq": lq.double()}, "two dimensions": {"lq": lq[0]}}
        changed |= {"channels last": {"lq": lq.permute(1, 2, 0)}, "numpy": {"lq": lq.numpy()}}
        item |= changed.get(fault, {})
        return {key: value for key, value in item.items() if f"without {key}" != fault}


@pytest.fixture(autouse=True)
def own_parts() -> Iterator[None]:
    parts = ((ARCH_REGISTRY, OwnNet), (LOSS_REGISTRY, OwnLoss), (DATASET_REGISTRY, OwnData))
    for registry, part in parts:
        registry.register(part)
    yield
    for registry, part in parts:
        del registry._entries[part.__name__]


NETWORK = """\
type: MambaIR
  upscale: 4
  embed_dim: 8
  depths: [1]
  d_state: 2
  mlp_ratio: 1.2
  upsampler: pixelshuffledirect"""
TRAINED = "type: PairedImageDataset\n    dataroot_gt: gt\n    dataroot_lq: lq"
VALIDATED = "type: BicubicDataset\n    dataroot_gt: gt"
RIGHT = {"net": "a tensor [B, C, H, W] is right", "loss": "a tensor of no dimensions with a gradient is right"}

NETWORKS = {
    "a tuple": "network_g: the first training step fails: OwnNet gives a value of type tuple; " + RIGHT["net"],
    "nothing": "network_g: the first training step fails: OwnNet gives a value of type NoneType; " + RIGHT["net"],
    "no batch": "network_g: the first training step fails: OwnNet gives a tensor [3, 16, 16]; " + RIGHT["net"],
    "raises outside of training": "network_g: the key 'masks' is missing (test_broken_own_code.py:",
    "no gradient": "train.pixel_opt: the first training step fails: L1Loss gives a number that does not depend on the ",
}
LOSSES = {
    "for each image": "OwnLoss gives a tensor [1]; " + RIGHT["loss"],
    "a pair": "OwnLoss gives a value of type tuple; " + RIGHT["loss"],
    "a float": "OwnLoss gives a value of type float; " + RIGHT["loss"],
    "detached": "OwnLoss gives a number that does not depend on the network's weights; " + RIGHT["loss"],
}
TRAINING_SETS = {
    "without lq": "OwnData gives gt, lq_path, gt_path; RestorationModel reads lq and gt",
    "without gt": "OwnData gives lq, lq_path, gt_path; RestorationModel reads lq and gt",
    "a pair": "OwnData gives a value of type list; a mapping with lq and gt is right",
    "bytes": "OwnData gives lq as 4 dimensions of uint8; a tensor of 4 dimensions of float32 is right",
    "doubles": "OwnData gives lq as 4 dimensions of float64; a tensor of 4 dimensions of float32 is right",
    "two dimensions": "OwnData gives lq as 3 dimensions of float32; a tensor of 4 dimensions of float32 is right",
    "channels last": "found images of 4 channel(s); 3, as MambaIR takes, is right",
    "raises": "IndexError: out of range (test_broken_own_code.py:",
}
VALIDATION_SETS = {
    "without lq": "OwnData gives gt, lq_path, gt_path; RestorationModel reads lq and lq_path",
    "without lq_path": "OwnData gives lq, gt, gt_path; RestorationModel reads lq and lq_path",
    "without gt": "OwnData gives no gt, which the metrics need",
    "a pair": "OwnData gives a value of type tuple; a mapping with lq and gt is right",
    "bytes": "OwnData gives lq as 3 dimensions of uint8; a tensor of 3 dimensions of float32 is right",
    "numpy": "OwnData gives lq as a value of type ndarray; a tensor of 3 dimensions of float32 is right",
    "channels last": "found images of 4 channel(s); 3, as MambaIR takes, is right",
    "raises": "IndexError: out of range (test_broken_own_code.py:",
}


def cases() -> list[Any]:
    """(replaced text, its replacement, line and message) of each fault."""
    found = []
    for fault, text in NETWORKS.items():
        line = 29 if text.startswith("train") else 15
        found.append(
            pytest.param(NETWORK, f"type: OwnNet\n  fault: {fault}", f"{line}: {text}", id=f"network: {fault}")
        )
    first = "the first training step fails"
    for fault, text in LOSSES.items():
        change = f"type: OwnLoss\n    fault: {fault}"
        found.append(pytest.param("type: L1Loss", change, f"34: train.pixel_opt: {first}: {text}", id=f"loss: {fault}"))
    for key, line, old, faults in (("train", 6, TRAINED, TRAINING_SETS), ("val", 12, VALIDATED, VALIDATION_SETS)):
        for fault, text in faults.items():
            change = f"type: OwnData\n    fault: {fault}"
            found.append(pytest.param(old, change, f"{line}: datasets.{key}: {text}", id=f"{key}: {fault}"))
    return found


@pytest.mark.parametrize(("replaced", "change", "message"), cases())
def test_own_code_that_gives_something_else(
    write: Write,
    workspace: Path,
    capsys: pytest.CaptureFixture[str],
    replaced: str,
    change: str,
    message: str,
) -> None:
    path = write((replaced, change))
    before = sorted(workspace.rglob("*"))
    assert main(["-opt", str(path)]) == 2
    assert sorted(workspace.rglob("*")) == before, "something was written"
    (told,) = (text for text in capsys.readouterr().err.splitlines() if text.startswith(str(path)))
    assert told.startswith(f"{path}:{message}")
