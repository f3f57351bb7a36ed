from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

import mambair
from mambair import archs
from mambair.weights.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from mambair.weights.recognition import recognise

CASES = [
    "mambair_ps_x2",
    "mambair_light_x3",
    "mambair_light_x2_ema",
    "mambair_color_dn",
    "mambair_gray_car",
    "mambair_unet_real_dn",
    "mambairv2_ps_x2",
    "mambairv2_light_x4",
    "mambairv2_nearest_x4",
    "mambairv2_gray_car",
]
TINY = {"embed_dim": 8, "depths": [1], "d_state": 2}


def save(path: Path, weights: dict[str, torch.Tensor], **metadata: str) -> Path:
    write_checkpoint(path, weights, {f"mambair.{key}": value for key, value in metadata.items()})
    return path


@pytest.mark.parametrize("name", CASES)
def test_published_files_are_recognised_by_content(name, golden, tmp_path):
    base = golden / "mambair" / "cases" / name
    facts = json.loads(base.with_suffix(".json").read_text())
    path = tmp_path / "weights.pth"  # a name that tells nothing
    path.write_bytes(base.with_suffix(".pth").read_bytes())
    net = mambair.load(path, param_key="params")
    assert type(net).__name__ == facts["arch"]
    assert not net.training
    assert net.upscale == facts["kwargs"].get("upscale", 1)
    assert net.in_chans == facts["kwargs"].get("in_chans", 3)
    assert all(parameter.requires_grad for parameter in net.parameters())
    stored = read_checkpoint(path, "params").state_dict
    assert list(net.state_dict()) == list(stored)
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, stored[key])


def test_averaged_weights_are_preferred(golden):
    case = golden / "mambair" / "cases" / "mambair_light_x2_ema.pth"
    averaged = read_checkpoint(case, "params_ema").state_dict["norm.weight"]
    assert torch.equal(mambair.load(case).norm.weight, averaged)


def test_loaded_network_restores_and_trains(golden):
    net = mambair.load(golden / "mambair" / "cases" / "mambair_light_x3.pth")
    y = net(torch.rand(1, 3, 5, 4))
    y.mean().backward()
    assert y.shape == (1, 3, 15, 12)
    assert net.conv_first.weight.grad is not None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_formats_and_precisions(suffix, dtype, tmp_path):
    weights = archs.MambaIR(**TINY).state_dict()
    path = save(tmp_path / f"net{suffix}", {name: tensor.to(dtype) for name, tensor in weights.items()})
    net = mambair.load(str(path))
    for name, tensor in net.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[name].to(dtype).to(torch.float32))


def test_nonfinite_weights(tmp_path):
    weights = archs.MambaIR(**TINY).state_dict()
    weights["norm.bias"][3] = torch.nan
    path = save(tmp_path / "net.pth", weights)
    with pytest.raises(CheckpointError, match=r"net\.pth: NaN or infinite values in norm\.bias; "):
        mambair.load(path)
    assert mambair.load(path, allow_nonfinite=True).norm.bias.isnan().sum() == 1


def test_metadata_wins_over_content(tmp_path):
    weights = archs.MambaIR(**TINY).state_dict()
    kwargs = json.dumps({**TINY, "img_range": 255.0})
    net = mambair.load(save(tmp_path / "net.safetensors", weights, arch="MambaIR", kwargs=kwargs))
    assert net.img_range == 255.0


@pytest.mark.parametrize(
    ("arch", "kwargs", "words"),
    [
        ("os.system", "{}", r"architecture 'os.system'; known: .*MambaIR.*; your own comes in by --import$"),
        ("basicsr/SwinIR", "{}", "architecture 'basicsr/SwinIR'"),
        ("MambaIR", "{", "no JSON object of arguments .Expecting"),
        ("MambaIR", "[1]", "expected a JSON object, got an array"),
        ("MambaIR", '{"window": 3}', "gives MambaIR window; it takes img_size"),
        ("MambaIR", '{"embed_dim": 1e12}', "absurd"),
        ("MambaIR", '{"embed_dim": NaN}', "NaN is not a number of JSON"),
        ("MambaIR", '{"depths": [60000]}', "absurd"),
        ("MambaIR", '{"depths": "many"}', "cannot be built"),
        ("MambaIR", '{"upsampler": "nearest+conv"}', "cannot be built: MambaIR has no upsampler"),
        ("MambaIR", '{"embed_dim": 16, "depths": [1]}', r"(?s)taken for MambaIR\(embed_dim=16.*of another shape"),
    ],
)
def test_bad_metadata(arch, kwargs, words, tmp_path):
    path = save(tmp_path / "net.safetensors", archs.MambaIR(**TINY).state_dict(), arch=arch, kwargs=kwargs)
    with pytest.raises(CheckpointError, match=words):
        mambair.load(path)


def test_weights_of_nobody(tmp_path):
    path = save(tmp_path / "net.pth", {"fc.weight": torch.zeros(2, 3)})
    with pytest.raises(CheckpointError) as caught:
        mambair.load(path)
    text = str(caught.value)
    assert "belong to none of MambaIR, " in text
    assert r"seen: 1 tensors: fc.weight [2, 3]" in text
    assert "not a single tensor has a known name" in text


def test_weights_of_a_relative_name_the_nearest(tmp_path):
    weights = archs.MambaIR(**TINY).state_dict()
    weights = {name.replace("conv_blk", "convolutions"): tensor for name, tensor in weights.items()}
    with pytest.raises(CheckpointError, match=r"nearest: MambaIR; it lacks a tensor like layers.N.*conv_blk\.cab\.0"):
        mambair.load(save(tmp_path / "net.pth", weights))


def test_a_damaged_file_lists_what_is_wrong(tmp_path):
    weights = archs.MambaIR(**TINY).state_dict()
    weights["norm.bias"] = torch.zeros(9)
    del weights["conv_last.bias"]
    weights["extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"(?s)taken for MambaIR.*norm.bias.*conv_last.bias.*extra"):
        mambair.load(save(tmp_path / "net.pth", weights))


def test_huge_networks_are_not_built_for_small_files(tmp_path):
    """A first convolution for 60000 channels must not make the loader allocate the other layers."""
    weights = archs.MambaIR(**TINY).state_dict()
    weights["conv_first.weight"] = torch.zeros(60_000, 3, 3, 3)
    with pytest.raises(CheckpointError, match="of another shape"):
        mambair.load(save(tmp_path / "net.pth", weights))


def test_importing_the_module_does_not_hide_the_function(golden):
    importlib.import_module("mambair.weights.loading")
    assert mambair.load(golden / "mambair" / "cases" / "mambair_gray_car.pth").in_chans == 1


def test_the_network_does_not_live_in_the_file(tmp_path):
    path = save(tmp_path / "net.safetensors", archs.MambaIR(**TINY).state_dict())
    net = mambair.load(path)
    before = net.norm.weight.clone()
    with path.open("rb+") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(net.norm.weight, before)


def test_recognise(golden):
    arch, kwargs = recognise(read_checkpoint(golden / "mambair" / "cases" / "mambairv2_light_x4.pth"))
    assert arch == "MambaIRv2Light"
    assert kwargs["num_tokens"] == 8
