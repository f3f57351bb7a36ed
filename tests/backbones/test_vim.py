from __future__ import annotations

import pytest
import torch

from mambair.backbones import BidirectionalMamba, VisionMamba, create_block
from mambair.backbones.rotary_embedding import RotaryEmbedding2d

TINY = {"img_size": 32, "patch_size": 8, "stride": 8, "depth": 2, "embed_dim": 8, "d_state": 2, "num_classes": 3}
NETWORKS = [
    *("bidirectional_none", "bidirectional_v2", "bimamba_none", "bimamba_v1", "double_cls", "dstate8_ssmcfg"),
    *("flip_always", "head_cls", "img_64x32_rect", "layernorm_fused", "layernorm_unfused", "layerscale"),
    *("midcls_div2_p16_i64", "midcls_div2_p8_i32", "no_abs_pos", "no_head", "nocls_pool_all", "nocls_pool_max"),
    *("nocls_pool_mean", "nocls_pool_none", "nodiv", "rope_bidirectional", "rope_headcls", "rope_midcls"),
    *("rope_nocls_mean", "rope_residual_nocls_mean", "stride8_p16_i64"),
]
MIXERS = ["none", "v1", "v1_divflag_ignored", "v2_L1", "v2_bias_gamma_noconvbias", "v2_div2", "v2_long", "v2_nodiv"]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_published_outputs(name, backbone_case, assert_near):
    case = backbone_case("vim", f"vim_{name}")
    net = VisionMamba(**case.kwargs).eval()
    net.load_state_dict(case.weights)
    seen = {}
    net.patch_embed.register_forward_hook(lambda _, __, output: seen.setdefault("patch_embed", output))
    for key in case.arrays:
        if key.endswith(".hidden"):
            number = key.removeprefix("block").removesuffix(".hidden")

            def keep(_, __, output, number=number):
                seen[f"block{number}.hidden"], seen[f"block{number}.residual"] = output

            net.layers[int(number)].register_forward_hook(keep)
    output = net(case.arrays["input"])
    features = net(case.arrays["input"], return_features=True)
    torch.testing.assert_close(output, case.arrays["output"], atol=1e-5, rtol=0)
    torch.testing.assert_close(features, case.arrays["features"], atol=1e-5, rtol=1e-5)
    assert {*seen, "input", "output", "features"} == set(case.arrays)
    for key, ours in seen.items():
        assert_near(ours, case.arrays[key])


@pytest.mark.parametrize("name", MIXERS)
def test_published_mixers(name, backbone_case):
    case = backbone_case("vim", f"mixer_{name}")
    mixer = BidirectionalMamba(**case.kwargs).eval()
    mixer.load_state_dict(case.weights)
    torch.testing.assert_close(mixer(case.arrays["input"]), case.arrays["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["rope_d16_pt14_ft4", "rope_d16_pt14_ft32", "rope_d96_pt14_ft14"])
def test_published_rotary_embedding(name, backbone_case):
    case = backbone_case("vim", name)
    rope = RotaryEmbedding2d(case.kwargs["dim"], case.kwargs["pt_seq_len"], case.kwargs["ft_seq_len"])
    torch.testing.assert_close(rope.freqs_cos, case.arrays["freqs_cos"], atol=1e-6, rtol=0)
    torch.testing.assert_close(rope.freqs_sin, case.arrays["freqs_sin"], atol=1e-6, rtol=0)
    for parity in ("even", "odd"):
        if f"input_{parity}" in case.arrays:
            turned = rope(case.arrays[f"input_{parity}"])
            torch.testing.assert_close(turned, case.arrays[f"output_{parity}"], atol=1e-6, rtol=0)


def test_both_directions_are_two_mirrored_mixers():
    """ "v2" is the mean of a forward mixer and a forward mixer on the sequence turned round."""
    torch.manual_seed(0)
    both = BidirectionalMamba(8, d_state=2).double()
    weights = both.state_dict()
    halves = []
    for suffix in ("", "_b"):
        half = BidirectionalMamba(8, d_state=2, bimamba_type="none").double()
        renamed = {"A_log": weights[f"A{suffix}_log"], "D": weights[f"D{suffix}"]}
        for part in ("conv1d", "x_proj", "dt_proj"):
            renamed |= {
                n.replace(part + suffix, part): t for n, t in weights.items() if n.split(".")[0] == part + suffix
            }
        renamed |= {name: weights[name] for name in ("in_proj.weight", "out_proj.weight")}
        half.load_state_dict(renamed)
        halves.append(half)
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    mean = 0.5 * (halves[0](x) + halves[1](x.flip(1)).flip(1))
    torch.testing.assert_close(both(x), mean, atol=1e-12, rtol=0)


def test_a_long_sequence_through_one_block():
    block = create_block(d_model=16)
    with torch.no_grad():
        hidden, residual = block(torch.randn(10, 8192, 16))
    assert hidden.shape == residual.shape == (10, 8192, 16)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bimamba_type": "v1", "rms_norm": False},
        {"use_double_cls_token": True, "drop_path_rate": 0.5},
        {"if_cls_token": False, "final_pool_type": "max"},
        {"if_bidirectional": True, "if_rope": True, "if_rope_residual": True, "if_cls_token": False},
        {"flip_img_sequences_ratio": 0.5, "if_rope": True, "if_devide_out": False},
        {"use_checkpoint": True, "init_layer_scale": 0.1},
    ],
    ids=str,
)
def test_gradients(kwargs):
    net = VisionMamba(**TINY, **kwargs)
    y = net(torch.rand(2, 3, 32, 32))
    y.sum().backward()
    assert y.shape == (2, 3)
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_spelling_of_the_division():
    assert not VisionMamba(**TINY, if_devide_out=False).layers[0].mixer.if_divide_out
    assert VisionMamba(**TINY).layers[0].mixer.if_divide_out


@torch.no_grad()
def test_random_order_and_place_of_the_class_token():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 32, 32)
    middle = VisionMamba(**TINY, bimamba_type="none").eval()
    assert not torch.allclose(middle(x, if_random_token_rank=True), middle(x), atol=1e-6)
    torch.testing.assert_close(middle(x, if_random_cls_token_position=True), middle(x))
    # a forward scan ends with what the last token has seen: its place decides how much that is
    head = VisionMamba(**TINY, bimamba_type="none", use_middle_cls_token=False).eval()
    assert len({head(x, if_random_cls_token_position=True).sum().item() for _ in range(12)}) > 1


def test_initial_values():
    torch.manual_seed(0)
    net = VisionMamba(**{**TINY, "embed_dim": 64})
    mixer = net.layers[0].mixer
    assert not mixer.dt_proj_b.bias.any()
    steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert steps.min() > 0.99e-3
    assert steps.max() < 0.11
    bound = 128**-0.5 / 2**0.5  # of a uniform distribution; divided by the root of the depth
    assert 0.9 * bound < mixer.out_proj.weight.abs().max() <= bound
    assert net.no_weight_decay() == {"pos_embed", "cls_token"}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"if_rope": True, "use_double_cls_token": True}, "class token 'double'"),
        ({"if_rope": True, "stride": 4}, "stride 4"),
        ({"if_rope": True, "img_size": 24}, "9 patches"),
        ({"if_rope": True, "img_size": (32, 64)}, "square"),
        ({"img_size": 4}, "at least patch_size"),
        ({"final_pool_type": "sum"}, "final_pool_type"),
        ({"bimamba_type": "v3"}, "bimamba_type"),
        ({"d_state": 0}, "d_state"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        VisionMamba(**{**TINY, **kwargs})


def test_another_image_size_is_explained():
    with pytest.raises(ValueError, match=r"build the network with img_size=\(40, 32\)"):
        VisionMamba(**TINY)(torch.rand(1, 3, 40, 32))


@pytest.mark.parametrize("kwargs", [{}, {"use_double_cls_token": True}, {"flip_img_sequences_ratio": 2.0}], ids=str)
@torch.no_grad()
def test_feature_maps(kwargs):
    net = VisionMamba(**TINY, **kwargs).eval()
    x = torch.rand(1, 3, 32, 32)
    tokens, maps = net.forward_intermediates(x, norm=True)
    assert [tuple(m.shape) for m in maps] == [(1, 8, 4, 4)] * 2
    patches = [i for i in range(tokens.shape[1]) if i not in net._embed(x)[1]]
    ordered = tokens.flip(1) if "flip_img_sequences_ratio" in kwargs else tokens
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), ordered[:, patches])
    first = net.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    net.prune_intermediate_layers([0])
    torch.testing.assert_close(net.forward_intermediates(x, indices=[0], intermediates_only=True), first)
