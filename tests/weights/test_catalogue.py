"""Published networks by name: what `mambair.create` builds, and what `mambair.list_networks` lists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mambair
from mambair.archs import BuildError
from mambair.archs.published import family_with, networks
from mambair.system.errors import RequestError
from mambair.weights.catalogue import find

SIZES = [
    *[
        f"{family}-x{scale}"
        for family in ("MambaIR-classic", "MambaIR-light", "MambaIR-light-2023")
        for scale in (2, 3, 4)
    ],
    *[f"MambaIRv2-{size}-x{scale}" for size in ("light", "small", "base", "large") for scale in (2, 3, 4)],
]
LEVELS = [
    *[f"{version}-color-dn-{sigma}" for version in ("MambaIR", "MambaIRv2") for sigma in (15, 25, 50)],
    *[f"{version}-gray-car-{quality}" for version in ("MambaIR", "MambaIRv2") for quality in (10, 30, 40)],
]
# names in the tables of the papers and of earlier versions of this project -> the full name
ALIASES = {
    "MambaIR-x2": "MambaIR-classic-x2",
    "MambaIRv2-S-x3": "MambaIRv2-small-x3",
    "MambaIRv2-B-x2": "MambaIRv2-base-x2",
    "MambaIRv2-L-x4": "MambaIRv2-large-x4",
    "MambaIR-color-dn": "MambaIR-color-dn-15",
    "MambaIRv2-gray-car": "MambaIRv2-gray-car-10",
    "MambaIRUNet": "MambaIRUNet-real-dn",
    "mambair-LIGHT-x4": "MambaIR-light-x4",
}


def test_the_restoration_networks_are_these() -> None:
    assert mambair.list_networks("MambaIR*") == sorted([*SIZES, *LEVELS, "MambaIRUNet-real-dn"])


@pytest.mark.parametrize(
    ("pattern", "count"), [("*-light-x4", 2), ("mambairv2-*-X4", 4), ("vim_tiny_patch16_224", 1), ("nothing*", 0)]
)
def test_patterns(pattern: str, count: int) -> None:
    assert len(mambair.list_networks(pattern)) == count


@pytest.mark.parametrize("name", [*SIZES, *LEVELS, "MambaIRUNet-real-dn"])
def test_a_network_has_the_published_parameters(name: str) -> None:
    spec = find(name)
    with torch.device("meta"):
        net = mambair.create(name)
    assert spec.family is not None
    count = sum(parameter.numel() for parameter in net.parameters())
    assert spec.family.parameters[int(net.upscale)] == count  # type: ignore[arg-type]
    assert family_with(count) == spec.family.family


_TAG = "bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
BACKBONES = {
    f"vim_tiny_patch16_224_{_TAG}": 7_148_008,
    f"vim_tiny_patch16_stride8_224_{_TAG}": 7_250_344,
    "vim_tiny_patch16_224": 7_148_008,
    "vim_small_patch16_224": 25_796_584,
    f"vim_small_patch16_stride8_224_{_TAG}": 26_001_256,
    "vim_base_patch16_224": 97_598_440,
    "vanilla_vmamba_tiny": 22_893_448,
    "vmambav0_small_224": 44_417_416,
    "vmambav0_base_224": 76_254_056,
    "vmamba_tiny_s2l5": 30_705_832,
    "vmambav2_small_224": 50_147_752,
    "vmambav2_base_224": 88_557_800,
    "vmamba_tiny_s1l8": 30_249_064,
    "vmambav2v_small_224": 49_012_840,
    "vmambav2v_base_224": 86_614_504,
}


@pytest.mark.parametrize(("name", "parameters"), BACKBONES.items())
def test_a_backbone_has_the_published_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        net = mambair.create(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert name in mambair.list_networks()


def test_backbones_need_no_timm(repository: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r}); sys.modules['timm'] = None\n"
        "import mambair\n"
        "net = mambair.create('vmamba_tiny_s1l8', depths=(1,), dims=8)\n"
        "print(type(net).__name__, 'vim_tiny_patch16_224' in mambair.list_networks('vim_*'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["VSSM", "True"], done.stderr[-2000:]


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    assert find(alias).name == name


def test_overrides_replace_published_arguments() -> None:
    net = mambair.create("MambaIR-light-x2", embed_dim=12, depths=[1])
    assert net.training and net.upscale == 2
    assert net.conv_first.weight.shape[0] == 12  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("name", "overrides", "error", "message"),
    [
        (
            "MambaIR-light-x8",
            {},
            RequestError,
            r"no published network is named 'MambaIR-light-x8'; nearest: MambaIR-light",
        ),
        ("vmamba_tiny", {}, RequestError, r"nearest: vanilla_vmamba_tiny, vmamba_tiny_s2l5, vmamba_tiny_s1l8$"),
        ("?", {}, RequestError, r"named '\?'; mambair\.list_networks\(\) lists the names$"),
        ("MambaIR-light-x4", {"depth": 2}, BuildError, r"^MambaIR\(.*depth=2\) cannot be built: .* mean 'depths'\?$"),
        ("MambaIR-light-x4", {"embed_dim": 1.5}, BuildError, r"cannot be built: embed_dim must be int, got 1\.5$"),
    ],
)
def test_errors(name: str, overrides: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mambair.create(name, **overrides)


def test_no_two_families_have_one_number_of_parameters(repository: Path) -> None:
    counts = [count for network in networks().values() for count in network.parameters.values()]
    assert len(counts) == len(set(counts))
    assert family_with(1) is None
    results = json.loads((repository / "mambair" / "evaluation" / "results.json").read_text())
    assert {method.get("network") for method in results["methods"].values()} - {None} <= set(networks())
