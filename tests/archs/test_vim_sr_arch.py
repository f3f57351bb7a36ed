from __future__ import annotations

import pytest
import torch

import mambair
from mambair.archs import VimSR
from mambair.archs.detectors import detect
from mambair.weights.checkpoint import write_checkpoint

TINY = {"embed_dim": 8, "depth": 3, "d_state": 2}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"upsampler": "pixelshuffledirect", "upscale": 3},
        {"upsampler": "pixelshuffle", "upscale": 4, "drop_path_rate": 0.5},
        {"in_chans": 1, "bimamba_type": "v1"},
        {"depth": 2, "use_checkpoint": True, "resi_connection": "3conv"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (5, 4)], ids=str)
def test_sizes_and_gradients(kwargs, size):
    net = VimSR(**{**TINY, **kwargs})
    x = torch.rand(2, net.in_chans, *size)
    y = net(x)
    y.square().sum().backward()
    assert y.shape == (2, net.in_chans, size[0] * net.upscale, size[1] * net.upscale)
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


@torch.no_grad()
def test_rows_and_columns_in_turn():
    """Two blocks that read a turned image column by column first are two that read it row by row first."""
    torch.manual_seed(0)
    net = VimSR(**{**TINY, "depth": 2}).eval()
    tokens = torch.randn(1, 3, 5, 8)
    hidden, residual = net.layers[0](tokens.flatten(1, 2))
    turned = [t.view(1, 3, 5, 8).transpose(1, 2).flatten(1, 2) for t in (hidden, residual)]
    expected = sum(net.layers[1](*turned)).view(1, 5, 3, 8).transpose(1, 2)
    torch.testing.assert_close(net._body(tokens), expected)


def test_step_sizes_are_small():
    mixer = VimSR(**TINY).layers[0].mixer
    for steps in (mixer.dt_proj.bias, mixer.dt_proj_b.bias):
        assert torch.nn.functional.softplus(steps).max() < 0.11


@torch.no_grad()
def test_recognised(tmp_path):
    net = VimSR(**TINY, upsampler="pixelshuffledirect", upscale=2, expand=1.5).eval()
    assert detect(net.state_dict())[0] == "VimSR"
    write_checkpoint(tmp_path / "net.pth", net.state_dict())
    x = torch.rand(1, 3, 6, 7)
    assert torch.equal(mambair.load(tmp_path / "net.pth")(x), net(x))


def test_starts_from_a_classifier():
    from mambair.backbones import VisionMamba  # importing the backbones brings in timm where it is installed

    weights = VisionMamba(img_size=32, depth=4, embed_dim=8, d_state=2, num_classes=2).state_dict()
    net = VimSR(**TINY)
    net.load_classifier_weights(weights)
    assert torch.equal(net.layers[2].mixer.x_proj.weight, weights["layers.2.mixer.x_proj.weight"])
    with pytest.raises(ValueError, match=r"layers\.4\.mixer\.A_log .*none"):
        VimSR(**{**TINY, "depth": 5}).load_classifier_weights(weights)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_network_has_a_block(depth):
    with pytest.raises(ValueError, match=f"depth must be at least 1, got {depth}"):
        VimSR(**{**TINY, "depth": depth})
