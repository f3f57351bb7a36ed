from __future__ import annotations

import pytest
import torch

import mambair
from mambair.archs import VSSMUNet
from mambair.archs.detectors import detect
from mambair.weights.checkpoint import write_checkpoint

TINY = {"dims": [8, 12], "depths": [1, 2], "shallow_dim": 8}


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"upscale": 3, "in_chans": 1}, {"upscale": 4, "use_checkpoint": True, "drop_path_rate": 0.5}, {"upscale": 2}],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (9, 14)], ids=str)
def test_sizes_and_gradients(kwargs, size):
    net = VSSMUNet(**TINY, **kwargs)
    torch.nn.init.normal_(net.conv_last.weight)
    y = net(torch.rand(2, net.in_chans, *size))
    y.square().sum().backward()
    assert y.shape == (2, net.in_chans, size[0] * net.upscale, size[1] * net.upscale)
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


@torch.no_grad()
def test_untrained_it_interpolates():
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(VSSMUNet(**TINY)(x), x)
    enlarged = torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(VSSMUNet(**TINY, upscale=2)(x), enlarged)


@torch.no_grad()
def test_recognised(tmp_path):
    net = VSSMUNet(**TINY, upscale=4, ssm_ratio=1.0, mlp_ratio=2.0, ssm_d_state=3).eval()
    torch.nn.init.normal_(net.conv_last.weight)
    assert detect(net.state_dict())[0] == "VSSMUNet"
    write_checkpoint(tmp_path / "net.pth", net.state_dict())
    x = torch.rand(1, 3, 10, 7)
    assert torch.equal(mambair.load(tmp_path / "net.pth")(x), net(x))


def test_starts_from_a_classifier():
    from mambair.backbones import VSSM  # importing the backbones brings in timm where it is installed
    from mambair.backbones.published import VMAMBA_MODELS

    shape = {"dims": [8, 12], "depths": [1, 2]}
    weights = VSSM(**{**VMAMBA_MODELS["vmamba_tiny_s2l5"], **shape}, num_classes=2).state_dict()
    net = VSSMUNet(**TINY)
    net.load_classifier_weights(weights)
    assert torch.equal(net.layers[0].downsample[1].weight, weights["layers.0.downsample.1.weight"])
    with pytest.raises(ValueError, match="tensors do not fit"):
        VSSMUNet(**{**TINY, "dims": [8, 16]}).load_classifier_weights(weights)


def test_bad_arguments():
    with pytest.raises(ValueError, match="one number for each stage"):
        VSSMUNet(dims=[8], depths=[1, 1])
