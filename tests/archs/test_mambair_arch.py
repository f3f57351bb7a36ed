from __future__ import annotations

import pytest
import torch

from mambair.archs import MambaIR
from mambair.registry import ARCH_REGISTRY

LAYOUTS = [
    *(f"mambair_classic_sr_x{scale}" for scale in (2, 3, 4)),
    *(f"mambair_light_sr_x{scale}" for scale in (2, 3, 4)),
    *(f"legacy_mambair_light_sr_x{scale}_202403" for scale in (2, 3, 4)),
    "mambair_real_sr_x4",
    "mambair_color_dn",
    "mambair_gray_car",
]
CASES = ["mambair_ps_x2", "mambair_light_x3", "mambair_light_x2_ema", "mambair_color_dn", "mambair_gray_car"]
TINY = {"embed_dim": 8, "depths": [1, 1], "d_state": 2, "mlp_ratio": 1.2}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_the_published_one(name, key_list, check_layout):
    published = key_list(name)
    form = {"light_cab": "legacy"} if name.startswith("legacy") else {}
    with torch.device("meta"):
        net = MambaIR(**published["kwargs"], **form)
    check_layout(net, published)
    assert net.upscale == published["kwargs"]["upscale"]
    assert net.in_chans == published["kwargs"]["in_chans"]


@pytest.mark.parametrize("name", CASES)
def test_published_outputs(name, network_case, run_with_intermediates):
    case = network_case(name)
    net = MambaIR(**case.kwargs).eval()
    net.load_state_dict(case.weights)
    output, intermediates = run_with_intermediates(net, case)
    torch.testing.assert_close(output, case.arrays["output"], atol=1e-5, rtol=0)
    assert intermediates
    for key, ours in intermediates.items():
        torch.testing.assert_close(ours.reshape(case.arrays[key].shape), case.arrays[key], atol=1e-5, rtol=0)


def test_published_output_of_averaged_weights(network_case):
    case = network_case("mambair_light_x2_ema", "params_ema")
    net = MambaIR(**case.kwargs).eval()
    net.load_state_dict(case.weights)
    with torch.no_grad():
        torch.testing.assert_close(net(case.arrays["input"]), case.arrays["output_ema"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "scale"),
    [
        ({"upsampler": "pixelshuffle", "upscale": 3}, 3),
        ({"upsampler": "pixelshuffle", "upscale": 4}, 4),
        ({"upsampler": "pixelshuffledirect", "upscale": 2}, 2),
        ({"upsampler": "pixelshuffledirect"}, 2),
        ({"upsampler": "pixelshuffledirect", "light_cab": "depthwise", "resi_connection": "3conv"}, 2),
        ({"in_chans": 1}, 1),
        ({"in_chans": 4, "patch_norm": False}, 1),
        ({"in_chans": 2, "img_range": 255.0}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (5, 3)], ids=str)
def test_heads_and_sizes(kwargs, scale, size):
    net = MambaIR(**TINY, **kwargs).eval()
    x = torch.rand(2, net.in_chans, *size)
    with torch.no_grad():
        y = net(x)
    assert net.upscale == scale
    assert y.shape == (2, net.in_chans, size[0] * scale, size[1] * scale)
    assert torch.isfinite(y).all()


def test_img_size_and_patch_size_have_no_influence():
    torch.manual_seed(0)
    one = MambaIR(**TINY)
    torch.manual_seed(0)
    other = MambaIR(**TINY, img_size=128, patch_size=4)
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"upsampler": "nearest+conv", "upscale": 4}, "'pixelshuffle', 'pixelshuffledirect'"),
        ({"upsampler": "pixelshufle"}, "no upsampler 'pixelshufle'"),
        ({"upscale": 4}, "without an upsampler"),
        ({"upscale": 0, "upsampler": "pixelshuffle"}, "at least 1"),
        ({"upscale": 5, "upsampler": "pixelshuffle"}, "scale of 5"),
        ({"resi_connection": "2conv"}, "resi_connection"),
        ({"upsampler": "pixelshuffledirect", "light_cab": "dense"}, "light_cab"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        MambaIR(**TINY, **kwargs)


def test_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="window_size"):
        MambaIR(**TINY, window_size=16)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (3, 4, 4), (1, 4, 4, 3)], ids=str)
def test_wrong_input(shape):
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        MambaIR(**TINY)(torch.zeros(shape))


def gradients_and_saved_bytes(use_checkpoint: bool) -> tuple[list[torch.Tensor], int]:
    torch.manual_seed(0)
    net = MambaIR(**TINY | {"depths": [3, 3]}, drop_path_rate=0.5, use_checkpoint=use_checkpoint)
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = net(torch.rand(2, 3, 12, 12)).square().mean()
    loss.backward()
    return [parameter.grad for parameter in net.parameters()], sum(saved.values())


def test_activation_checkpointing_saves_memory_and_changes_nothing():
    plain, much = gradients_and_saved_bytes(False)
    checkpointed, little = gradients_and_saved_bytes(True)
    for ours, theirs in zip(checkpointed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert little < much / 3


def test_stochastic_depth_is_active_by_default():
    net = MambaIR(**TINY)
    rates = [module.drop_prob for name, module in net.named_modules() if name.endswith("drop_path")]
    assert rates == pytest.approx([0.0, 0.1])


def test_mean_follows_the_input_and_stays_out_of_the_weights():
    with torch.device("meta"):
        net = MambaIR(**TINY)
    assert net.mean.device.type == "cpu"
    assert "mean" not in net.state_dict()
    assert MambaIR(**TINY).double()(torch.rand(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_low_precision():
    net = MambaIR(**TINY, upsampler="pixelshuffledirect").eval()
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = net(x)
    assert (rounded.float() - exact).abs().max() < 0.05


def test_registered():
    assert ARCH_REGISTRY.get("MambaIR") is MambaIR
