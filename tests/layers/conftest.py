"""Exact inputs, outputs and gradients of the published modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class ModuleCase:
    kwargs: dict[str, Any]
    weights: dict[str, Tensor]
    arrays: dict[str, Tensor]
    facts: dict[str, Any]


@pytest.fixture
def module_case(golden: Path) -> Callable[[str], ModuleCase]:
    def read(name: str) -> ModuleCase:
        base = golden / "mambair" / "cases" / name
        facts = json.loads(base.with_suffix(".json").read_text())
        with np.load(base.with_suffix(".npz")) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        weights = torch.load(base.with_suffix(".pth"), weights_only=True)["params"]
        kwargs = {key: value for key, value in facts["kwargs"].items() if key != "norm_layer"}
        return ModuleCase(kwargs, weights, arrays, facts)

    return read


def check_gradients(module: torch.nn.Module, x: Tensor, case: ModuleCase) -> None:
    """Compare with the stored float32 gradients, to 2e-5 of the largest: they carry rounding of their own."""
    pairs = {"input": (x.grad, case.arrays["grad_input"])}
    for name, parameter in module.named_parameters():
        pairs[name] = (parameter.grad, case.arrays[f"grad_param.{name}"])
    for name, (ours, theirs) in pairs.items():
        assert ours is not None, name
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, atol=2e-5 * scale, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture
def compare_gradients() -> Callable[[torch.nn.Module, Tensor, ModuleCase], None]:
    return check_gradients
