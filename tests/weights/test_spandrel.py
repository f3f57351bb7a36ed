"""Our networks through the loader of ComfyUI and chaiNNer (where spandrel is installed)."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mambair.weights.checkpoint import read_checkpoint

NAMES = ["MambaIR", "MambaIRv2", "MambaIRv2Light", "MambaIRUNet"]
# case: architecture, purpose, scale, channels, multiple of, tags
CASES: dict[str, tuple[str, str, int, int, int, list[str]]] = {
    "mambair_ps_x2": ("MambaIR", "SR", 2, 3, 1, ["30dim", "3blocks"]),
    "mambair_light_x3": ("MambaIR", "SR", 3, 3, 1, ["32dim", "4blocks"]),
    "mambair_light_x2_ema": ("MambaIR", "SR", 2, 3, 1, ["30dim", "1blocks"]),
    "mambair_color_dn": ("MambaIR", "Restoration", 1, 3, 1, ["36dim", "2blocks"]),
    "mambair_gray_car": ("MambaIR", "Restoration", 1, 1, 1, ["32dim", "3blocks"]),
    "mambair_unet_real_dn": ("MambaIRUNet", "Restoration", 1, 3, 8, ["16dim", "3blocks"]),
    "mambairv2_ps_x2": ("MambaIRv2", "SR", 2, 3, 1, ["18dim", "3blocks"]),
    "mambairv2_light_x4": ("MambaIRv2Light", "SR", 4, 3, 1, ["16dim", "4blocks"]),
    "mambairv2_nearest_x4": ("MambaIRv2", "SR", 4, 3, 1, ["12dim", "2blocks"]),
    "mambairv2_gray_car": ("MambaIRv2", "Restoration", 1, 1, 1, ["18dim", "3blocks"]),
}


@pytest.fixture(scope="module")
def spandrel() -> ModuleType:
    """spandrel with our networks in its main registry."""
    module = pytest.importorskip("spandrel")
    importlib.import_module("mambair.weights.spandrel").install()
    return module


@pytest.fixture
def stored(golden: Path) -> Any:
    """case -> arrays and facts of the published network."""

    def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        base = golden / "mambair" / "cases" / name
        with np.load(base.with_suffix(".npz")) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}, json.loads(
                base.with_suffix(".json").read_text()
            )

    return read


@pytest.fixture
def load(spandrel: ModuleType, golden: Path) -> Any:
    """case -> what spandrel's own loader returns for it."""
    return lambda name: spandrel.ModelLoader().load_from_file(golden / "mambair" / "cases" / f"{name}.pth")


@pytest.mark.parametrize("name", CASES)
def test_descriptor(name, spandrel, load):
    arch, purpose, scale, channels, multiple_of, tags = CASES[name]
    found = load(name)
    assert isinstance(found, spandrel.ImageModelDescriptor)
    assert (found.architecture.id, found.architecture.name, found.purpose) == (arch, arch, purpose)
    assert (found.scale, found.input_channels, found.output_channels) == (scale, channels, channels)
    assert found.size_requirements == spandrel.SizeRequirements(multiple_of=multiple_of)
    assert found.tiling is spandrel.ModelTiling.SUPPORTED
    assert found.tags == tags
    assert (found.supports_half, found.supports_bfloat16) == (True, True)
    assert type(found.model).__name__ == arch
    assert not found.model.training
    assert (found.dtype, found.device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("name", CASES)
def test_published_output(name, load, stored):
    arrays, facts = stored(name)
    found = load(name)
    if "gumbel_seed" in facts:  # the noise of the published forward
        generator = torch.Generator().manual_seed(facts["gumbel_seed"])
        found.model.forward = partial(found.model.forward, generator=generator)
    # spandrel takes the averaged weights where there are some, like mambair.load
    expected = arrays["output_ema" if "output_ema" in arrays else "output"]
    torch.testing.assert_close(found(arrays["input"]), expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["mambair_light_x3", "mambair_unet_real_dn", "mambairv2_ps_x2"])
def test_any_size_is_what_the_network_alone_gives(name, load):
    found = load(name)
    x = torch.rand(1, 3, 11, 17, generator=torch.Generator().manual_seed(0))
    y = found(x)
    with torch.no_grad():
        alone = found.model(x)
    assert y.shape == (1, 3, 11 * found.scale, 17 * found.scale)
    torch.testing.assert_close(y, alone.clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net_g.", "model._orig_mod."])
def test_wrapped_weights(prefix, spandrel, golden, tmp_path):
    weights = read_checkpoint(golden / "mambair" / "cases" / "mambair_light_x3.pth").state_dict
    path = tmp_path / "net.pth"
    torch.save({"params": {f"{prefix}{name}": tensor for name, tensor in weights.items()}}, path)
    found = spandrel.ModelLoader().load_from_file(path)
    assert found.architecture.id == "MambaIR"
    assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["mambair_light_x3", "mambair_gray_car", "mambair_unet_real_dn", "mambairv2_ps_x2"])
def test_half_precision(name, dtype, load, stored):
    arrays, _ = stored(name)
    found = load(name)
    if hasattr(found.model, "routing"):
        found.model.routing = "argmax"
    exact = found(arrays["input"])
    y = found.to(dtype)(arrays["input"].to(dtype))
    assert y.dtype == dtype
    # ten roundings deep: the mean error stays at a few units of the last place (a choice of MambaIRv2's routing may
    # flip, which changes single pixels by more)
    assert (y.float() - exact).abs().mean() < 8 * torch.finfo(dtype).eps


def test_routing_noise_in_half_precision(load, stored):
    x = stored("mambairv2_light_x4")[0]["input"].half()
    found = load("mambairv2_light_x4").half()
    first = found(x)
    assert torch.isfinite(first).all()
    assert torch.equal(first, found(x))


def test_packaged_weights(spandrel, repository):
    found = spandrel.ModelLoader().load_from_file(repository / "mambair" / "weights" / "mambair_small_x4.safetensors")
    assert (found.architecture.id, found.scale) == ("MambaIR", 4)


def test_every_published_layout_is_ours_before_anybody_elses(spandrel, golden):
    layouts = sorted((golden / "mambair" / "state_dict").glob("*.json"))
    assert any(path.name.startswith("legacy") for path in layouts)
    for path in layouts:
        facts = json.loads(path.read_text())
        with torch.device("meta"):
            weights = {name: torch.empty(shape) for name, shape in facts["state_dict"].items()}
        first = next(each for each in spandrel.MAIN_REGISTRY.architectures("detection") if each.detect(weights))
        assert first.architecture.id == facts["arch"], path.name


def test_legacy_light_weights_load(spandrel):
    from mambair.archs import MambaIR

    net = MambaIR(embed_dim=10, depths=[1], d_state=2, upsampler="pixelshuffledirect", upscale=2, light_cab="legacy")
    found = spandrel.ModelLoader().load_from_state_dict(net.state_dict())
    x = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(found.model(x), net.eval()(x))


def test_a_network_for_one_size_says_so(spandrel):
    from mambair.archs import MambaIRv2

    net = MambaIRv2(embed_dim=8, depths=[1], num_heads=[2], d_state=2, window_size=4, ape=True, img_size=8)
    found = spandrel.ModelLoader().load_from_state_dict(net.state_dict())
    assert found.size_requirements == spandrel.SizeRequirements(minimum=8, square=True)
    assert found(torch.rand(1, 3, 5, 8)).shape == (1, 3, 5, 8)


def test_the_network_does_not_share_memory_with_the_state_dict(spandrel):
    from mambair.archs import MambaIR

    weights = MambaIR(embed_dim=8, depths=[1], d_state=2).state_dict()
    found = spandrel.ModelLoader().load_from_state_dict(weights)
    before = weights["norm.weight"].clone()
    with torch.no_grad():
        found.model.norm.weight.add_(1)
    assert torch.equal(weights["norm.weight"], before)


FOREIGN = {
    "Compact": ("Compact", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_conv": 1, "upscale": 2}),
    "SwinIR": (  # the nearest relative
        "SwinIR",
        {"img_size": 16, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2}
        | {"upscale": 2, "upsampler": "pixelshuffledirect"},
    ),
}


@pytest.mark.parametrize("arch", FOREIGN)
def test_others_networks_still_load(arch, spandrel, tmp_path):
    name, kwargs = FOREIGN[arch]
    net = getattr(importlib.import_module(f"spandrel.architectures.{arch}"), name)(**kwargs)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    found = spandrel.ModelLoader().load_from_file(tmp_path / "net.pth")
    assert (found.architecture.id, found.scale) == (arch, 2)
    assert found(torch.rand(1, 3, 16, 16)).shape == (1, 3, 32, 32)


def test_files_of_nobody_are_refused_by_spandrel(spandrel):
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_state_dict({"fc.weight": torch.zeros(2, 3), "epoch": 3, "note": "text"})


def test_install_twice(spandrel):
    from mambair.weights.spandrel import install

    registry = spandrel.ArchRegistry()
    assert install(registry) == NAMES
    assert install(registry) == []
    assert [each.architecture.id for each in registry] == NAMES
    before = len(spandrel.MAIN_REGISTRY)
    assert install() == []
    assert len(spandrel.MAIN_REGISTRY) == before


def test_without_spandrel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mambair.weights.spandrel", raising=False)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ImportError, match=r'pip install "mambair\[spandrel\]"'):
        importlib.import_module("mambair.weights.spandrel")
