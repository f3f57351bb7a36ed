from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mambair.layers.feed_forward import ConvFeedForward, GatedConvFeedForward


def test_plain_form():
    torch.manual_seed(0)
    layer = ConvFeedForward(6, 12, kernel_size=3)
    x = torch.randn(2, 5, 4, 6)
    hidden = F.gelu(layer.fc1(x)).permute(0, 3, 1, 2)
    expected = layer.fc2((hidden + F.gelu(layer.dwconv.depthwise_conv[0](hidden))).permute(0, 2, 3, 1))
    torch.testing.assert_close(layer(x), expected)


def test_gated_form():
    torch.manual_seed(0)
    layer = GatedConvFeedForward(6, 8)
    x = torch.randn(2, 5, 4, 6)
    first, second = F.gelu(layer.fc1(x)).chunk(2, dim=-1)
    gate = layer.sg.conv(layer.sg.norm(second).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer.fc2(first * gate))


def test_bad_sizes():
    with pytest.raises(ValueError, match="must be even"):
        GatedConvFeedForward(6, 9)
    with pytest.raises(ValueError, match="must be odd"):
        ConvFeedForward(6, 12, kernel_size=4)
