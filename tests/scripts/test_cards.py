"""scripts/package_weights.py and scripts/make_model_card.py: a finished training becomes a file and a card."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import mambair
from mambair.archs import MambaIR
from mambair.weights.checkpoint import read_checkpoint, write_checkpoint

ARGUMENTS = {"upscale": 2, "embed_dim": 12, "depths": [1], "d_state": 2, "upsampler": "pixelshuffledirect"}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """What a training of 30 iterations leaves, interrupted once after 20 and resumed at 10."""
    torch.manual_seed(0)
    metadata = {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(ARGUMENTS)}
    write_checkpoint(tmp_path / "models" / "net_g_latest.pth", MambaIR(**ARGUMENTS).state_dict(), metadata)
    (tmp_path / "small.yml").write_text("name: small\n")
    reports = [(10, 36.0), (20, 36.0), (20, 72.0), (30, 36.0)]
    lines = [json.dumps({"iter": iteration, "seconds": seconds}) for iteration, seconds in reports]
    lines.insert(1, json.dumps({"iter": 10, "validation": "Set5", "psnr": 30.0}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_training_becomes_a_file_and_a_card(
    load_script: Callable[[str], ModuleType], repository: Path, experiment: Path
) -> None:
    weights, zoo = experiment / "small_x2.safetensors", experiment / "zoo.md"
    package = load_script("package_weights")
    code = package.main(["--experiment", str(experiment), "--training-data", "noise", "--output", str(weights)])
    assert code == 0
    training = json.loads(read_checkpoint(weights).metadata["mambair.training"])
    assert training["iterations"] == 30
    assert training["hours"] == pytest.approx((10 * 36 + 10 * 72 + 10 * 36) / 3600, abs=0.005)  # rounded to 0.01
    assert mambair.load(weights).upscale == 2

    card = load_script("make_model_card")
    images = repository / "datasets" / "example" / "lr_x4"
    arguments = ["--weights", str(weights), "--set", f"example={images}", "--output", str(zoo)]
    assert card.main(arguments) == 0
    first = zoo.read_text()
    assert "| example | 4 |" in first
    assert "30 iterations" in first
    assert card.main(arguments) == 0
    assert zoo.read_text() == first, "writing a card again must replace it"


def test_hours_and_iterations_of_earlier_cycles_are_added(
    load_script: Callable[[str], ModuleType], experiment: Path
) -> None:
    package, arguments = load_script("package_weights"), ["--experiment", str(experiment), "--training-data", "noise"]
    files = [experiment / f"{number}.safetensors" for number in range(3)]
    assert package.main([*arguments, "--output", str(files[0])]) == 0
    for before, after in itertools.pairwise(files):
        assert package.main([*arguments, "--output", str(after), "--continues", str(before)]) == 0
    one, _, three = (json.loads(read_checkpoint(path).metadata["mambair.training"]) for path in files)
    assert three["iterations"] == 90 and three["cycles"] == 3
    assert three["hours"] == pytest.approx(3 * one["hours"], abs=0.02)  # each rounded to 0.01


def test_no_report_is_an_error(load_script: Callable[[str], ModuleType], experiment: Path) -> None:
    (experiment / "metrics.jsonl").write_text("")
    package = load_script("package_weights")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: there is no report of an iteration in it"):
        package.training_record(experiment / "metrics.jsonl")
