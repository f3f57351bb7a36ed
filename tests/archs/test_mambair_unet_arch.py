from __future__ import annotations

import pytest
import torch

from mambair.archs import MambaIRUNet
from mambair.registry import ARCH_REGISTRY

TINY = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 1.0}


def test_layout_is_the_published_one(key_list, check_layout):
    published = key_list("mambair_unet_real_dn")
    with torch.device("meta"):
        net = MambaIRUNet(**published["kwargs"])
    check_layout(net, published)
    assert (net.upscale, net.in_chans) == (1, 3)


def test_published_output(network_case, run_with_intermediates):
    case = network_case("mambair_unet_real_dn")
    net = MambaIRUNet(**case.kwargs).eval()
    net.load_state_dict(case.weights)
    output, intermediates = run_with_intermediates(net, case)
    torch.testing.assert_close(output, case.arrays["output"], atol=1e-5, rtol=0)
    assert len(intermediates) == 5
    for key, ours in intermediates.items():
        torch.testing.assert_close(ours.reshape(case.arrays[key].shape), case.arrays[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (7, 12), (8, 16)], ids=str)
def test_any_size(size):
    net = MambaIRUNet(**TINY).eval()
    with torch.no_grad():
        y = net(torch.rand(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert torch.isfinite(y).all()


def test_padding_is_by_reflection():
    net = MambaIRUNet(**TINY).eval()
    x = torch.rand(1, 3, 13, 8)
    with torch.no_grad():
        reflected = net(torch.nn.functional.pad(x, (0, 0, 0, 3), mode="reflect"))[:, :, :13]
        torch.testing.assert_close(net(x), reflected, atol=1e-6, rtol=0)


def test_activation_checkpointing_changes_nothing():
    def gradients(use_checkpoint: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = MambaIRUNet(**TINY, drop_path_rate=0.5, use_checkpoint=use_checkpoint)
        torch.manual_seed(1)
        net(torch.rand(1, 3, 8, 8)).square().mean().backward()
        return [torch.zeros(()) if parameter.grad is None else parameter.grad for parameter in net.parameters()]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dual_pixel_task": True}, "dual_pixel_task is not available"),
        ({"out_channels": 1}, "must equal inp_channels"),
        ({"num_blocks": [1, 1]}, "four resolutions"),
        ({"dim": 5}, "even"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        MambaIRUNet(**TINY | kwargs)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        MambaIRUNet(**TINY)(torch.zeros(1, 1, 8, 8))


def test_registered():
    assert ARCH_REGISTRY.get("MambaIRUNet") is MambaIRUNet
