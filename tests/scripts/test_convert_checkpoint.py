from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

import mambair
from mambair.weights.checkpoint import read_checkpoint


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("convert_checkpoint")


def test_there_and_back(script, golden, tmp_path, capsys):
    published = golden / "mambair" / "cases" / "mambair_light_x2_ema.pth"
    there, back = tmp_path / "net.safetensors", tmp_path / "net.pth"
    assert script.main([str(published), str(there)]) == 0
    assert "MambaIR, sr, " in capsys.readouterr().out
    assert script.main([str(there), str(back)]) == 0
    original = read_checkpoint(published, "params_ema").state_dict
    for path in (there, back):
        checkpoint = read_checkpoint(path)
        assert checkpoint.metadata["mambair.arch"] == "MambaIR"
        assert checkpoint.metadata["mambair.task"] == "sr"
        assert json.loads(checkpoint.metadata["mambair.kwargs"])["mlp_ratio"] == 1.2
        assert checkpoint.state_dict.keys() == original.keys()
        assert all(torch.equal(tensor, original[name]) for name, tensor in checkpoint.state_dict.items())
        assert mambair.load(path).upscale == 2
    assert list(read_checkpoint(back).state_dict) == list(original)


def test_choices(script, golden, tmp_path):
    published = golden / "mambair" / "cases" / "mambair_light_x2_ema.pth"
    path = tmp_path / "net.safetensors"
    assert script.main([str(published), str(path), "--param-key", "params", "--task", "denoise", "--half"]) == 0
    checkpoint = read_checkpoint(path)
    original = read_checkpoint(published, "params").state_dict
    assert checkpoint.metadata["mambair.task"] == "denoise"
    assert torch.equal(checkpoint.state_dict["norm.weight"], original["norm.weight"].half())


def test_wrapped_names_become_current_ones(script, golden, tmp_path):
    original = read_checkpoint(golden / "mambair" / "cases" / "mambair_gray_car.pth").state_dict
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"params": {f"module.{name}": tensor for name, tensor in original.items()}}, wrapped)
    assert script.main([str(wrapped), str(tmp_path / "net.pth")]) == 0
    assert list(torch.load(tmp_path / "net.pth", weights_only=True)["params"]) == list(original)


def test_faults(script, tmp_path, capsys):
    strange = tmp_path / "strange.pth"
    torch.save({"fc.weight": torch.zeros(2)}, strange)
    assert script.main([str(strange), str(tmp_path / "out.pth")]) == 1
    assert "belong to none of" in capsys.readouterr().err
    assert script.main([str(tmp_path / "absent.pth"), str(tmp_path / "out.pth")]) == 1
    assert script.main([str(strange), str(strange)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()
