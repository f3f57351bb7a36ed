from __future__ import annotations

import pytest
import torch

from mambair.backbones import VSSM, Backbone_VSSM
from mambair.backbones.forward_types import make_scan_layer
from mambair.backbones.vmamba import BlockOptions, make_block
from mambair.layers import PatchMerging2D
from mambair.ops.scan_order import to_image, to_tokens

TINY = {"depths": [1, 1], "dims": 8, "num_classes": 5, "ssm_d_state": 1, "forward_type": "v05_noz"}
NETWORKS = [
    "vmambav0_64x64",
    "vmambav0_dims8",
    "vmambav0_dimslist",
    "vmambav0_legacy_names",
    "vmambav0_odd_36x44",
    "vmambav2_bn",
    "vmambav2_channel_last",
    "vmambav2_downv2_nopatchnorm",
    "vmambav2_gmlp",
    "vmambav2_noconv_relu",
    "vmambav2_patch8",
    "vmambav2_posembed",
    "vmambav2_s2",
    "vmambav2_s2_64x64",
    "vmambav2_s2_depths2",
    "vmambav2_z_dstate16",
    "vmambav2v_s1",
    "vmambav2v_s1_64x96",
    "vmambav2v_s1_dimslist_odd",
]
BACKBONES = ["backbone_v0_all", "backbone_v2v_all", "backbone_v2v_idx13_40x48", "backbone_v2v_no_indices"]
SCAN_LAYERS = [
    *("v0", "v0seq", "v01", "v01_no32", "v02", "v03", "v04", "v05", "v3", "v3_noz", "v3_noz_cf"),
    *("v051d_noz", "v051d_noz_cf", "v052d_noz", "v052d_noz_cf", "v052dc_noz_cf"),
    *("v05_noz", "v05_noz_1x9", "v05_noz_bias_init1", "v05_noz_cf", "v05_noz_cf_dstate1_noconvbias"),
    *("v05_noz_cf_noconv", "v05_nozact", "v05_oact", "v05_oncnorm_noz", "v05_oncnorm_noz_cf"),
    *("v05_ondwconv3_noz", "v05_ondwconv3_noz_cf", "v05_onnone_noz", "v05_onnone_noz_cf"),
    *("v05_onsigmoid_noz", "v05_onsigmoid_noz_cf", "v05_onsoftmax_noz", "v05_onsoftmax_noz_cf"),
]


def run_with_hooks(net, case):
    """The output and the outputs of the modules named in the case."""
    seen = {}
    for name, module in case.facts["hooks"].items():
        hook = lambda _, __, output, name=name: seen.setdefault(name, output)  # noqa: E731
        net.get_submodule(module).register_forward_hook(hook)
    with torch.no_grad():
        return net.eval()(case.arrays["input"]), seen


@pytest.mark.parametrize("name", NETWORKS)
def test_published_outputs(name, backbone_case, assert_near):
    case = backbone_case("vmamba", name)
    net = VSSM(**case.kwargs)
    net.load_state_dict(case.weights)
    output, seen = run_with_hooks(net, case)
    assert_near(output, case.arrays["output"])
    assert seen
    for key, ours in seen.items():
        assert_near(ours, case.arrays[key])


@pytest.mark.parametrize("name", BACKBONES)
def test_published_features(name, backbone_case):
    case = backbone_case("vmamba", name)
    net = Backbone_VSSM(**case.kwargs)
    net.load_state_dict(case.weights)
    output, _ = run_with_hooks(net, case)
    outputs = [output] if isinstance(output, torch.Tensor) else output
    expected = [tensor for key, tensor in case.arrays.items() if key.startswith("output")]
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SCAN_LAYERS)
def test_published_scan_layers(name, backbone_case, assert_near):
    case = backbone_case("vmamba", f"ss2d_{name}")
    kwargs = dict(case.kwargs)
    forward_type, d_model, ratio = kwargs.pop("forward_type"), kwargs.pop("d_model"), kwargs.pop("ssm_ratio")
    layer = make_scan_layer(forward_type, d_model, activation="silu", expand=ratio, **kwargs)
    layer.load_state_dict(case.weights)
    with torch.no_grad():
        output = layer.eval()(case.arrays["input"])
    assert_near(output, case.arrays["output"])  # a stored output is itself up to 1.6e-5 from a float64 computation


@pytest.mark.parametrize("name", ["block_nomlp", "block_nossm", "block_postnorm", "block_prenorm"])
def test_published_blocks(name, backbone_case):
    case = backbone_case("vmamba", name)
    kwargs = {key: value for key, value in case.kwargs.items() if key not in ("channel_first", "hidden_dim")}
    drop_path, post_norm = kwargs.pop("drop_path"), kwargs.pop("post_norm", False)
    block = make_block(12, BlockOptions(**kwargs), drop_path=drop_path, post_norm=post_norm).eval()
    block.load_state_dict(case.weights)
    torch.testing.assert_close(block(case.arrays["input"]), case.arrays["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["even", "odd", "oddH", "cf_even"])
def test_published_merging(name, backbone_case):
    case = backbone_case("vmamba", f"patchmerge_{name}")
    norm = "ln2d" if case.kwargs["channel_first"] else "ln"
    layer = PatchMerging2D(case.kwargs["dim"], case.kwargs["out_dim"], norm)
    layer.load_state_dict(case.weights)
    torch.testing.assert_close(layer(case.arrays["input"]), case.arrays["output"], atol=1e-6, rtol=0)


def test_merging_of_odd_sides_is_the_same_in_both_layouts():
    """The official channels-first layer raises here."""
    last, first = PatchMerging2D(3), PatchMerging2D(3, norm_layer="ln2d")
    first.load_state_dict(last.state_dict())
    x = torch.randn(2, 5, 7, 3)
    torch.testing.assert_close(first(x.permute(0, 3, 1, 2)), last(x).permute(0, 3, 1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("scans", "directions"), [(0, (0, 1, 2, 3)), (1, (0, 0, 0, 0)), (2, (0, 0, 2, 2))])
@pytest.mark.parametrize("size", ["3x4x5", "6x6"])
def test_published_order_of_pixels(scans, directions, size, backbone_case):
    """ss2d_scan's directions are VMamba's: what is scanned, and how four results are merged (the merge comes flat)."""
    arrays = backbone_case("vmamba", f"cross_scan_merge_{size}").arrays
    x, maps = arrays["x_bhwc"], arrays["ys_bhw4c"]
    height, width = x.shape[1:3]
    scanned = torch.stack([to_tokens(x, direction) for direction in directions], 2)
    assert torch.equal(scanned, arrays[f"scan_scans{scans}_inHWC_outHWC"])
    parts = [maps[..., k, :].flatten(1, 2) for k in range(4)]
    merged = sum(to_image(part, d, height, width) for part, d in zip(parts, directions, strict=True))
    theirs = arrays[f"merge_scans{scans}_inHWC_outHWC"]
    torch.testing.assert_close(merged.flatten(1, 2), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm_layer", ["LN", "ln2d", "bn"])
@pytest.mark.parametrize("size", [(4, 4), (33, 50)], ids=str)
def test_any_size_and_gradients(norm_layer, size):
    net = VSSM(**TINY, norm_layer=norm_layer, downsample_version="v1", patchembed_version="v2", use_checkpoint=True)
    net(torch.rand(2, 3, *size)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_layouts_agree():
    torch.manual_seed(0)
    last = VSSM(**TINY, norm_layer="ln").eval()
    first = VSSM(**TINY, norm_layer="ln2d").eval()
    first.load_state_dict(last.state_dict())
    x = torch.rand(1, 3, 24, 20)
    torch.testing.assert_close(first(x), last(x), atol=1e-5, rtol=0)


def test_position_embedding_of_another_size_is_resized():
    net = VSSM(**TINY, posembed=True, imgsize=32)
    other = VSSM(**TINY, posembed=True, imgsize=48)
    other.load_state_dict(net.state_dict())
    assert other(torch.rand(1, 3, 48, 48)).shape == (1, 5)
    with pytest.raises(ValueError, match="imgsize"):
        other(torch.rand(1, 3, 32, 32))


def test_classifier_weights_start_a_pyramid():
    net = VSSM(**TINY)
    pyramid = Backbone_VSSM(out_indices=(-1,), **TINY)
    pyramid.load_classifier_weights(net.state_dict())
    assert torch.equal(pyramid.layers[0].blocks[0].op.A_logs, net.layers[0].blocks[0].op.A_logs)
    assert [tuple(out.shape) for out in pyramid(torch.rand(1, 3, 16, 16))] == [(1, 16, 2, 2)]
    with pytest.raises(ValueError, match="not this network's"):
        pyramid.load_classifier_weights(VSSM(**{**TINY, "dims": 4}).state_dict())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"forward_type": "m0_noz"}, "Mamba-2"),
        ({"forward_type": "xv1a"}, "unstable"),
        ({"forward_type": "v052d3"}, "debugging"),
        ({"forward_type": "v05_nozz"}, "is not known"),
        ({"forward_type": "v05_onnone_oncnorm"}, "one is possible"),
        ({"norm_layer": "gn"}, "norm_layer"),
        ({"downsample_version": "v4"}, "downsample_version"),
        ({"downsample_version": "none"}, "channels"),
        ({"patchembed_version": "v3"}, "patchembed_version"),
        ({"patchembed_version": "v2", "patch_size": 5}, "even"),
        ({"dims": [8]}, "dims"),
        ({"mlp_act_layer": "tanh"}, "activation"),
        ({"ssm_init": "v3"}, "initialize"),
    ],
    ids=lambda v: str(v),
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        VSSM(**{**TINY, **kwargs})


def test_a_misspelt_argument_is_an_error():
    with pytest.raises(TypeError, match="ssm_rank_ratio"):
        Backbone_VSSM(**TINY, ssm_rank_ratio=2.0)
