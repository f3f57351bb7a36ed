"""Option files with one key changed to a random value: a run that works or exit code 2, never a traceback."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mambair.options.schema import (
    ConstantSchedule,
    CosineRestartSchedule,
    LoaderOptions,
    LoggerOptions,
    MultiStepSchedule,
    Options,
    PathOptions,
    TrainOptions,
    ValOptions,
)
from mambair.options.signatures import named_parameters
from mambair.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from mambair.train import main

Write = Callable[..., Path]
Key = tuple[str, ...]

CHUNKS, CHANGES = 20, 25  # 500 in all
SAFE: dict[Key, Any] = {("train", "total_iter"): 2, ("val", "val_freq"): 2}
NUMBERS = [0, 1, 2, 3, 5, 7, 16, 64, -1, -3, 10**9, 10**30]
NUMBERS += [0.5, -0.5, 1.0, 2.5, 1e-4, 1e-30, 1e30, math.nan, math.inf]
TEXTS = ["", " ", "gt", "lq", "gt/a.png", "/", "..", "1e-4", "yes", "auto", "rgb", "y", "{}", "a" * 300, "L1Loss"]
TEXTS += [
    "basicsr/EDSR",
    "basicsr/L1Loss",
    "ü",
    "a\nb",
    "~",
    "bf16",
    "MambaIR",
    "SRModel",
    "PairedImageDataset",
    "Adam",
]
LISTS = [[], [0], [1], [-1], [2, 2], [1, 2, 3], [1.5], ["a"], [None], [[1]], [0.9, 0.99], [10**9]]
MAPPINGS = [{}, {"a": 1}, {"type": "L1Loss"}, {"type": 5}, {"type": "Adam", "lr": 1e-3}, {1: 2}, {"type": "lmdb"}]
VALUES: list[Any] = [None, True, False, *NUMBERS, *TEXTS, *LISTS, *MAPPINGS]


# a step with these may work and a later one not, as a rate is lowered or a moment has grown only then
MAY_DIVERGE: set[Key] = {("train", "scheduler", "gamma")}
MAY_DIVERGE |= {("train", "optim_g", name) for name in ("lr", "eps", "weight_decay", "betas")}


def keys() -> list[Key]:
    """Every key of the schema that a training file may have, in the parts that the small file uses."""
    sections: dict[Key, list[str]] = {
        (): list(Options.model_fields),
        ("path",): list(PathOptions.model_fields),
        ("train",): list(TrainOptions.model_fields),
        ("val",): list(ValOptions.model_fields),
        ("logger",): list(LoggerOptions.model_fields),
        ("train", "scheduler"): ["type", *MultiStepSchedule.model_fields, *CosineRestartSchedule.model_fields],
        ("train", "optim_g"): ["type", *named_parameters(torch.optim.Adam)],
        ("train", "pixel_opt"): ["type", *named_parameters(LOSS_REGISTRY.get("L1Loss"))],
        ("network_g",): ["type", *named_parameters(ARCH_REGISTRY.get("MambaIR"))],
        ("val", "metrics", "psnr"): ["type", "better", *named_parameters(METRIC_REGISTRY.get("calculate_psnr"))],
    }
    from mambair.data import BicubicDataset, PairedImageDataset

    for label, dataset in (("train", PairedImageDataset), ("val", BicubicDataset)):
        fields = ["type", "name", *LoaderOptions.model_fields, *dataset.Options.model_fields]
        sections["datasets", label] = list(dict.fromkeys(fields))
    assert not ConstantSchedule.model_fields
    return [(*section, name) for section, names in sections.items() for name in names]


def changed(base: dict[str, Any], key: Key, value: Any) -> dict[str, Any]:
    """A copy of ``base`` with one key changed."""
    options = copy.deepcopy(base)
    place = options
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    return options


@pytest.fixture
def base(write: Write, workspace: Path) -> dict[str, Any]:
    """The small file, two iterations long, over images that are not empty."""
    generator = np.random.default_rng(0)
    for folder, side in (("gt", 24), ("lq", 6)):
        for path in (workspace / folder).iterdir():
            Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    options = yaml.safe_load(write(("milestones: [5]", "milestones: [1]"), ("lr: 1e-4", "lr: 0.0001")).read_text())
    for key, value in SAFE.items():
        options = changed(options, key, value)
    return options


def learned(run: Path) -> bool:
    """Whether a finished training has a step with a finite loss, and finite weights."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [value for record in records for name, value in record.items() if name.startswith("l_")]
    (weights,) = run.glob("models/net_g_latest.pth")
    tensors = torch.load(weights, weights_only=True)["params"].values()
    return any(isinstance(loss, float) for loss in losses) and all(bool(torch.isfinite(one).all()) for one in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CHUNKS))
def test_a_random_change_works_or_is_refused(
    base: dict[str, Any], workspace: Path, seed: int, capsys: pytest.CaptureFixture[str], record_property: Any
) -> None:
    chance, known, codes = random.Random(seed), keys(), []
    before = sorted(workspace.rglob("*"))
    for _ in range(CHANGES):
        key, value = chance.choice(known), chance.choice(VALUES)
        mode = ["--check"] if key == ("train", "total_iter") else chance.choice([[], ["--check"]])
        path = workspace / "file.yml"
        path.write_text(yaml.safe_dump(changed(base, key, value), allow_unicode=True), encoding="utf-8")
        described = f"{'.'.join(key)}: {value!r} {mode}"
        try:
            code = main(["-opt", str(path), *mode])
        except BaseException as error:
            raise AssertionError(f"{described}: {type(error).__name__}: {error}") from error
        told = capsys.readouterr()
        codes.append(code)
        written = [path for path in sorted(workspace.rglob("*")) if path not in before]
        if code == 0 and not mode:
            (metrics,) = [path for path in written if path.name == "metrics.jsonl"]
            assert learned(metrics.parent), described
        elif code == 1:  # only what shows after steps that worked: they went on to numbers that are not finite
            assert key in MAY_DIVERGE and "not finite" in told.out, f"{described}: {told.out}"
        else:
            assert code in (0, 2), f"{described}: exit code {code}"
            assert code == 0 or (told.err.strip() and not written), f"{described}: {told.err} {written}"
        for made in written:
            if made.is_dir():
                shutil.rmtree(made, ignore_errors=True)
            else:
                made.unlink(missing_ok=True)
    record_property("codes", {code: codes.count(code) for code in set(codes)})
