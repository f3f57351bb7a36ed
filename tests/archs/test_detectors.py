from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from mambair import archs
from mambair.archs.detectors import count, detect, nearest, shortest_ratio
from mambair.registry import ARCH_REGISTRY

NOT_IN_WEIGHTS = {"img_size", "img_range", "dual_pixel_task"}  # of no influence on the tensors
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "mambair" / "state_dict"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_every_published_layout_is_recognised(name, key_list):
    published = key_list(name)
    weights = {key: torch.empty(shape, device="meta") for key, shape in published["state_dict"].items()}
    arch, kwargs = detect(weights)
    assert arch == published["arch"]
    ignored = NOT_IN_WEIGHTS | ({"convffn_kernel_size"} if arch == "MambaIRv2Light" else set())
    expected = {key: value for key, value in published["kwargs"].items() if key not in ignored}
    assert {key: kwargs[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("MambaIR", {"embed_dim": 31, "mlp_ratio": 1.36, "depths": [1, 3], "in_chans": 4, "patch_norm": False}),
        ("MambaIR", {"embed_dim": 8, "depths": [1], "upsampler": "pixelshuffle", "upscale": 1}),
        ("MambaIR", {"embed_dim": 8, "depths": [1], "upsampler": "pixelshuffle", "upscale": 8, "in_chans": 1}),
        ("MambaIR", {"embed_dim": 8, "depths": [2], "upsampler": "pixelshuffledirect", "light_cab": "depthwise"}),
        ("MambaIR", {"embed_dim": 8, "depths": [1], "resi_connection": "3conv"}),
        ("MambaIRv2", {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 3], "ape": True, "img_size": 12}),
        ("MambaIRv2", {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 6, "qkv_bias": False}),
        (
            "MambaIRv2Light",
            {"embed_dim": 12, "depths": [1], "num_heads": [2], "upsampler": "nearest+conv", "upscale": 4},
        ),
        ("MambaIRUNet", {"dim": 6, "num_blocks": [0, 1, 2, 1], "bias": True, "inp_channels": 1, "out_channels": 1}),
    ],
    ids=str,
)
def test_uncommon_networks_are_recognised(arch, kwargs):
    with torch.device("meta"):
        weights = getattr(archs, arch)(**kwargs).state_dict()
        found = detect(weights)
        assert found is not None
        again = getattr(archs, found[0])(**found[1]).state_dict()
    assert found[0] == arch
    assert {key: found[1].get(key) for key in kwargs} == kwargs
    assert {name: t.shape for name, t in again.items()} == {name: t.shape for name, t in weights.items()}


@pytest.mark.parametrize(
    "name", ["conv_first.weight", "layers.0.residual_group.blocks.0.self_attention.out_norm.weight"]
)
@pytest.mark.parametrize("shape", [(), (0,), (0, 0, 0, 0)], ids=str)
def test_odd_shapes_are_nobodys(name, shape, key_list):
    published = key_list("mambair_light_sr_x4")["state_dict"]
    weights = {key: torch.empty(size, device="meta") for key, size in published.items()}
    weights[name] = torch.empty(shape, device="meta")
    found = detect(weights)
    assert found is None or 0 in {found[1]["embed_dim"], int(found[1]["mlp_ratio"])}


def test_gaps_in_numbering_are_nobodys(key_list):
    published = key_list("mambair_light_sr_x4")["state_dict"]
    weights = {key: torch.empty(size, device="meta") for key, size in published.items()}
    weights["layers.1000000000.conv.bias"] = torch.empty(3, device="meta")
    assert detect(weights) is None


def test_nearest():
    part = {
        "conv_first.weight": torch.empty(1),
        "layers.0.residual_group.blocks.0.self_attention.A_logs": torch.empty(1),
    }
    detector, share = nearest(part)
    assert detector.arch == "MambaIR"
    assert 0.5 < share < 1.0
    assert detector.lacking(part) == [r"layers\.\d+\.residual_group\.blocks\.0\.conv_blk\.cab\.0\.weight"]
    assert nearest({"fc.weight": torch.empty(1)}) is None


@pytest.mark.parametrize(
    ("whole", "part", "ratio"),
    [(180, 360, 2.0), (60, 72, 1.2), (32, 38, 1.2), (60, 90, 1.5), (48, 48, 1.0), (31, 42, 1.36)],
)
def test_shortest_ratio(whole, part, ratio):
    assert shortest_ratio((whole, part)) == ratio
    assert int(ratio * whole) == part


def test_a_ratio_of_several_widths():
    for ratio in (0.1, 1.15, 1.2, 1.33, 1.99, 2.5, 4.35):
        widths = [(dim, int(ratio * dim)) for dim in (10, 48, 96, 100, 192, 300)]
        assert [int(shortest_ratio(*widths) * dim) for dim, _ in widths] == [part for _, part in widths]
    assert shortest_ratio((48, 63), (96, 127)) == 1.33
    with pytest.raises(ValueError, match="no ratio fits"):
        shortest_ratio((48, 63), (96, 200))


def test_count():
    weights = {f"a.{i}.b": torch.empty(0) for i in (0, 1, 2, 2, 1)}
    assert count(weights, r"a\.(\d+)\.") == 3
    assert count(weights, r"c\.(\d+)\.") == 0
    assert count({**weights, "a.5.b": torch.empty(0)}, r"a\.(\d+)\.") is None


SMALL = {"embed_dim": 8, "d_state": 4}
V2 = SMALL | {"num_heads": (2, 1), "window_size": 4, "inner_rank": 4, "num_tokens": 5}


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        *[("MambaIR", SMALL | {"depths": depths}) for depths in [(0, 1), (2, 0), (1,), (1, 0, 2)]],
        *[("MambaIRv2", V2 | {"depths": depths}) for depths in [(0, 1), (2, 0), (1, 1)]],
        *[("MambaIRv2Light", V2 | {"depths": depths}) for depths in [(0, 1), (2, 0), (1, 1)]],
        *[
            ("MambaIRUNet", {"dim": 4, "num_blocks": blocks, "num_refinement_blocks": last, "bias": bias})
            for blocks, last in [((1, 0, 0, 0), 0), ((0, 0, 0, 1), 1), ((0, 1, 1, 0), 2), ((0, 0, 0, 0), 0)]
            for bias in (False, True)
        ],
        *[
            ("VSSMUNet", {"dims": (8, 12, 16)[: len(depths)], "depths": depths, "shallow_dim": 4})
            for depths in [(0, 1, 1), (1, 0, 0), (0, 0, 2), (1, 1), (1,), (0, 0)]
        ],
        *[
            (arch, settings | {"depths": (0, 1), "upsampler": upsampler, "upscale": upscale})
            for arch, settings in [("MambaIR", SMALL), ("MambaIRv2", V2), ("MambaIRv2Light", V2)]
            for upsampler, upscale in [("", 1), ("pixelshuffle", 3), ("pixelshuffle", 4), ("pixelshuffledirect", 2)]
        ],
    ],
    ids=str,
)
def test_networks_without_blocks_in_a_level_are_recognised(arch, kwargs):
    recognised(arch, kwargs)


def recognised(arch, kwargs):
    """Recognise the weights of a network: what they tell of ``kwargs`` is in it, and builds the same tensors again."""
    build = ARCH_REGISTRY.get(arch)
    with torch.device("meta"):
        weights = build(**kwargs).state_dict()
        found = detect(weights)
        assert found is not None and found[0] == arch
        rebuilt = build(**found[1]).state_dict()
    assert {name: t.shape for name, t in rebuilt.items()} == {name: t.shape for name, t in weights.items()}
    for key in kwargs.keys() & found[1].keys() - OF_NO_INFLUENCE:
        expected = list(kwargs[key]) if isinstance(kwargs[key], tuple) else kwargs[key]
        assert found[1][key] == expected, (key, kwargs)


# another ratio may give the same widths; a group without blocks has no heads
OF_NO_INFLUENCE = {"mlp_ratio", "ssm_ratio", "expand", "num_heads"}
GRID = {
    "MambaIR": {
        "depths": [(0, 1), (1, 0, 2)],
        "embed_dim": [7, 10],
        "d_state": [1, 5],
        "mlp_ratio": [1.2, 1.33, 2.5],
        "in_chans": [1, 4],
        "patch_norm": [False, True],
        "upsampler": ["", "pixelshuffle", "pixelshuffledirect"],
        "resi_connection": ["1conv", "3conv"],
    },
    "MambaIRv2": {
        "depths": [(0, 1), (1, 0)],
        "num_heads": [(2, 1)],
        "embed_dim": [6, 10],
        "d_state": [1, 5],
        "window_size": [2, 3],
        "inner_rank": [3],
        "num_tokens": [4],
        "convffn_kernel_size": [3, 7],
        "mlp_ratio": [1.2, 1.33, 2.5],
        "qkv_bias": [False, True],
        "in_chans": [1, 4],
        "upsampler": ["", "pixelshuffle", "pixelshuffledirect"],
    },
    "MambaIRUNet": {
        "inp_channels": [1, 3, 4],
        "dim": [6, 10],
        "num_blocks": [(0, 1, 0, 0), (1, 0, 0, 2)],
        "num_refinement_blocks": [0, 1],
        "mlp_ratio": [1.2, 1.33, 2.5],
        "bias": [False, True],
    },
    "MambaIRv2Light": {
        "depths": [(0, 1), (1, 0)],
        "num_heads": [(2, 1)],
        "embed_dim": [12],
        "d_state": [1, 5],
        "window_size": [2, 3],
        "inner_rank": [3],
        "num_tokens": [4],
        "mlp_ratio": [1.2, 1.35, 2.5],
        "qkv_bias": [False, True],
        "in_chans": [1, 4],
        "upsampler": ["", "pixelshuffle", "pixelshuffledirect"],
    },
    "VimSR": {
        "embed_dim": [7, 10],
        "depth": [1, 2],
        "d_state": [1, 5],
        "expand": [1.2, 1.33, 2.5],
        "bimamba_type": ["none", "v1", "v2"],
        "in_chans": [1, 4],
        "upsampler": ["", "pixelshuffle"],
    },
    "VSSMUNet": {
        "dims": [(48, 96), (10, 14, 22), (6, 12)],
        "depths": [(1, 1, 0), (0, 1, 2), (2, 0, 0), (0, 0, 0)],
        "shallow_dim": [4, 5],
        "ssm_d_state": [1, 5],
        "ssm_ratio": [1.2, 1.33, 2.5],
        "mlp_ratio": [1.2, 1.33, 2.5],
        "in_chans": [1, 4],
    },
}


def configurations(arch):
    """Every combination, with each factor of enlargement in turn."""
    table = GRID[arch]
    for number, values in enumerate(itertools.product(*table.values())):
        kwargs = dict(zip(table, values, strict=True))
        if arch == "MambaIRUNet":
            kwargs["out_channels"] = kwargs["inp_channels"]
        elif arch == "VSSMUNet":
            kwargs |= {"depths": kwargs["depths"][: len(kwargs["dims"])], "upscale": number % 4 + 1}
        else:
            kwargs["upscale"] = number % 4 + 1 if kwargs["upsampler"] else 1
        yield kwargs


@pytest.mark.parametrize("step", [23, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arch", GRID)
def test_a_grid_of_legal_networks_is_recognised(arch, step):
    for kwargs in itertools.islice(configurations(arch), 0, None, step):
        recognised(arch, kwargs)


def test_the_first_convolution_of_the_unet_has_no_bias_as_published():
    weights = ARCH_REGISTRY.get("MambaIRUNet")(dim=4, num_blocks=(1, 1, 1, 1), bias=True).state_dict()
    assert "patch_embed.proj.bias" not in weights
    assert {"output.bias", "reduce_chan_level3.bias", "reduce_chan_level2.bias"} <= weights.keys()
