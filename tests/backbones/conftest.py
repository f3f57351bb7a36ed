"""Exact key lists, weights, inputs and outputs of the published backbones."""

from __future__ import annotations

import json
import os
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
class BackboneCase:
    kwargs: dict[str, Any]
    arrays: dict[str, Tensor]
    weights: dict[str, Tensor]
    path: Path
    facts: dict[str, Any]


@pytest.fixture
def backbone_case(golden: Path) -> Callable[[str, str], BackboneCase]:
    """(family, name) -> the case; no weights where it has none. Larger ones are with the development data."""

    def read(family: str, name: str) -> BackboneCase:
        base = golden / family / "cases" / name
        if not base.with_suffix(".json").exists():
            elsewhere = os.environ.get("MAMBAIR_TEST_DATA")
            if not elsewhere:
                pytest.skip("a larger case, MAMBAIR_TEST_DATA names no folder that has it")
            base = Path(elsewhere) / "golden" / family / "cases" / name
        facts = json.loads(base.with_suffix(".json").read_text())
        with np.load(base.with_suffix(".npz")) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        path = base.with_suffix(".pth")
        weights = read_checkpoint(path).state_dict if path.exists() else {}
        return BackboneCase(facts["kwargs"], arrays, weights, path, facts)

    return read


@pytest.fixture
def key_list(golden: Path) -> Callable[[str, str], dict[str, Any]]:
    """(family, name) -> facts of one published configuration: kwargs, params, state_dict (name -> shape)."""
    return lambda family, name: json.loads((golden / family / "state_dict" / f"{name}.json").read_text())


@pytest.fixture
def assert_near() -> Callable[[Tensor, Tensor], None]:
    """Within 1e-5, or 1e-5 of the largest value where that is above 1: rounding grows with the values that are added,
    and inner maps of these networks reach hundreds."""

    def check(ours: Tensor, theirs: Tensor) -> None:
        tolerance = 1e-5 * max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)

    return check
