"""Exact key lists, weights, inputs and outputs of the published networks."""

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

from mambair.weights.checkpoint import read_checkpoint


@dataclass(frozen=True)
class NetworkCase:
    arch: str
    kwargs: dict[str, Any]
    path: Path
    weights: dict[str, Tensor]
    arrays: dict[str, Tensor]
    facts: dict[str, Any]


@pytest.fixture
def network_case(golden: Path) -> Callable[..., NetworkCase]:
    def read(name: str, param_key: str = "params") -> NetworkCase:
        base = golden / "mambair" / "cases" / name
        facts = json.loads(base.with_suffix(".json").read_text())
        with np.load(base.with_suffix(".npz")) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        path = base.with_suffix(".pth")
        weights = read_checkpoint(path, param_key).state_dict
        return NetworkCase(facts["arch"], facts["kwargs"], path, weights, arrays, facts)

    return read


@pytest.fixture
def key_list(golden: Path) -> Callable[[str], dict[str, Any]]:
    """The facts of one published configuration: arch, kwargs, params, state_dict (name -> shape), dtypes."""
    return lambda name: json.loads((golden / "mambair" / "state_dict" / f"{name}.json").read_text())


@pytest.fixture
def check_layout() -> Callable[[torch.nn.Module, dict[str, Any]], None]:
    """Names in order, shapes, dtypes and the parameter count of a network equal the published ones."""

    def check(net: torch.nn.Module, published: dict[str, Any]) -> None:
        state = net.state_dict()
        assert [(name, list(tensor.shape)) for name, tensor in state.items()] == list(published["state_dict"].items())
        for name, tensor in state.items():
            assert str(tensor.dtype) == f"torch.{published['dtypes'].get(name, 'float32')}", name
        assert sum(parameter.numel() for parameter in net.parameters()) == published["params"]

    return check


@pytest.fixture
def run_with_intermediates() -> Callable[[torch.nn.Module, NetworkCase], tuple[Tensor, dict[str, Tensor]]]:
    """Run a network on the case's input; the output, and the outputs of the modules the case has stored."""

    def run(net: torch.nn.Module, case: NetworkCase) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
                seen.setdefault(name, output)

            return hook

        handles = [
            net.get_submodule(where["module"]).register_forward_hook(keep(name))
            for name, where in case.facts["intermediates"].items()
        ]
        with torch.no_grad():
            output = net(case.arrays["input"])
        for handle in handles:
            handle.remove()
        return output, seen

    return run
