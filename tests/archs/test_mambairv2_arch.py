from __future__ import annotations

from functools import partial

import pytest
import torch

from mambair import archs
from mambair.archs import MambaIRv2, MambaIRv2Light
from mambair.registry import ARCH_REGISTRY

LAYOUTS = [
    *(f"mambairv2_{size}_sr_x{scale}" for size in ("small", "light") for scale in (2, 3, 4)),
    *(  # the large ones take seconds each and differ from the small ones in numbers only
        pytest.param(f"mambairv2_{size}_sr_x{scale}", marks=pytest.mark.slow if scale < 4 else ())
        for size in ("base", "large")
        for scale in (2, 3, 4)
    ),
    "mambairv2_color_dn",
    "mambairv2_gray_car",
]
CASES = ["mambairv2_ps_x2", "mambairv2_light_x4", "mambairv2_nearest_x4", "mambairv2_gray_car"]
TINY = {
    "embed_dim": 8,
    "depths": [2],
    "num_heads": [2],
    "d_state": 2,
    "window_size": 4,
    "num_tokens": 4,
    "inner_rank": 3,
    "mlp_ratio": 1.0,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_the_published_one(name, key_list, check_layout):
    published = key_list(name)
    with torch.device("meta"):
        net = getattr(archs, published["arch"])(**published["kwargs"])
    check_layout(net, published)
    assert net.upscale == published["kwargs"]["upscale"]


def build(case):
    net = getattr(archs, case.arch)(**case.kwargs).eval()
    net.load_state_dict(case.weights)
    return net


@pytest.mark.parametrize("name", CASES)
def test_published_outputs_under_the_published_seed(name, network_case, run_with_intermediates):
    case = network_case(name)
    net = build(case)
    generator = torch.Generator().manual_seed(case.facts["gumbel_seed"])
    net.forward = partial(net.forward, generator=generator)
    output, intermediates = run_with_intermediates(net, case)
    torch.testing.assert_close(output, case.arrays["output"], atol=1e-5, rtol=0)
    assert len(intermediates) == 4
    for key, ours in intermediates.items():
        torch.testing.assert_close(ours.reshape(case.arrays[key].shape), case.arrays[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_published_outputs_with_stored_noise_without_noise_and_with_a_generator(name, network_case):
    case = network_case(name)
    net = build(case)
    x = case.arrays["input"]
    noise = [case.arrays[f"gumbel_{i}"] for i in range(len(case.facts["gumbel_order"]))]
    with torch.no_grad():
        given = net(x, noise=noise)
        drawn = net(x, generator=torch.Generator().manual_seed(case.facts["gumbel_seed"]))
        net.routing = "argmax"
        likeliest = net(x)
    torch.testing.assert_close(given, case.arrays["output"], atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn, case.arrays["output"], atol=1e-5, rtol=0)
    torch.testing.assert_close(likeliest, case.arrays["output_nonoise"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", [MambaIRv2, MambaIRv2Light])
@pytest.mark.parametrize("size", [(1, 1), (3, 9), (4, 8)], ids=str)
def test_any_size(arch, size):
    net = arch(**TINY, upsampler="pixelshuffledirect", upscale=3).eval()
    with torch.no_grad():
        y = net(torch.rand(2, 3, *size))
    assert y.shape == (2, 3, 3 * size[0], 3 * size[1])
    assert torch.isfinite(y).all()


def test_every_layout_of_a_batch_is_the_same_network():
    torch.manual_seed(0)
    net = MambaIRv2(**TINY, routing="argmax").eval()
    x = torch.rand(3, 3, 9, 6)
    with torch.no_grad():
        together = net(x)
        alone = torch.cat([net(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def noisy_net() -> MambaIRv2:
    """A network whose output depends on the routing clearly."""
    torch.manual_seed(0)
    net = MambaIRv2(**TINY | {"embed_dim": 16}, upsampler="").eval()
    for layer in net.layers[0].residual_group.layers:
        torch.nn.init.normal_(layer.embeddingA.weight, std=3.0)
        torch.nn.init.normal_(layer.assm.embeddingB.weight, std=3.0)
        torch.nn.init.ones_(layer.scale1)
    return net


def test_routing_noise_of_eval_mode_follows_from_seed_and_origin():
    net, x = noisy_net(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        y = net(x)
        assert torch.equal(net(x), y)
        assert torch.equal(net(x, origin=torch.tensor([[0, 0]])), y)
        assert not torch.equal(net(x, seed=1), y)
        assert not torch.equal(net(x, origin=torch.tensor([[0, 8]])), y)
        net.routing = "argmax"
        assert not torch.equal(net(x), y)
        assert torch.equal(net(x, seed=1), net(x))


def test_training_draws_from_the_default_generator():
    net, x = noisy_net().train(), torch.rand(1, 3, 8, 8)
    torch.manual_seed(3)
    y = net(x)
    assert torch.equal(net(x, generator=torch.Generator().manual_seed(3)), y)


@pytest.mark.parametrize("arch", [MambaIRv2, MambaIRv2Light])
@pytest.mark.parametrize("generator", [False, True], ids=["global", "generator"])
def test_activation_checkpointing_changes_nothing(arch, generator):
    def gradients(use_checkpoint: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = arch(**TINY, use_checkpoint=use_checkpoint)
        torch.manual_seed(1)
        source = torch.Generator().manual_seed(2) if generator else None
        net(torch.rand(1, 3, 8, 8), generator=source).square().mean().backward()
        return [parameter.grad for parameter in net.parameters()]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)


def test_position_vectors_tie_the_network_to_one_size():
    net = MambaIRv2(**TINY, ape=True, img_size=8).eval()
    assert net.state_dict()["absolute_pos_embed"].shape == (1, 64, 8)
    with torch.no_grad():
        assert net(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)
        with pytest.raises(ValueError, match="64 pixels only, got 8x12"):
            net(torch.rand(1, 3, 8, 12))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"upsampler": "nearest+conv", "upscale": 2}, "by 4 only"),
        ({"upsampler": "bicubic"}, "no upsampler 'bicubic'"),
        ({"routing": "softmax"}, "gumbel, argmax"),
        ({"num_heads": [2, 2]}, "one entry a group"),
        ({"num_heads": [3]}, "num_heads must divide"),
        ({"upscale": 2}, "without an upsampler"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        MambaIRv2(**TINY | kwargs)


def test_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="interval"):
        MambaIRv2(**TINY, interval=4)  # pyright: ignore[reportCallIssue]


def test_low_precision():
    torch.manual_seed(0)
    net = MambaIRv2Light(**TINY, upsampler="pixelshuffledirect", routing="argmax").eval()
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x)
    assert torch.isfinite(y).all()


def test_registered():
    assert ARCH_REGISTRY.get("MambaIRv2") is MambaIRv2
    assert ARCH_REGISTRY.get("MambaIRv2Light") is MambaIRv2Light
