from __future__ import annotations

import pytest
import torch
from torch import nn

from mambair.layers import VSSBlock


@pytest.mark.parametrize("name", ["vssblock", "vssblock_light"])
def test_published_output_and_gradients(name, module_case, compare_gradients):
    case = module_case(name)
    block = VSSBlock(**case.kwargs, norm_layer=nn.LayerNorm).eval()
    block.load_state_dict(case.weights)
    x = case.arrays["input"].requires_grad_()
    y = block(x, tuple(case.facts["x_size"]))
    torch.testing.assert_close(y, case.arrays["output"], atol=1e-5, rtol=0)
    y.backward(case.arrays["grad_output"])
    compare_gradients(block, x, case)


def test_plug_and_play():
    block = VSSBlock(hidden_dim=128, drop_path=0.1, attn_drop_rate=0.1, d_state=16, expand=2.0, is_light_sr=False)
    x = torch.randn(4, 1024, 128)
    y = block(x, (32, 32))
    assert y.shape == x.shape
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("form", ["dilated", "depthwise", "legacy"])
def test_light_forms(form):
    block = VSSBlock(32, d_state=4, expand=1.2, is_light_sr=True, light_cab=form)
    assert block(torch.randn(1, 12, 32), (3, 4)).shape == (1, 12, 32)


def test_maps_and_tokens_are_the_same():
    block = VSSBlock(8, d_state=2).eval()
    x = torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(block(x).flatten(1, 2), block(x.flatten(1, 2), (3, 5)))


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [((1, 12, 8), (3, 5), r"3 \* 5"), ((1, 12, 8), None, "x_size is not given"), ((1, 3, 4, 8), (3, 4), r"3 \* 4")],
    ids=["count", "no size", "map with size"],
)
def test_wrong_shapes(shape, size, words):
    with pytest.raises(ValueError, match=words):
        VSSBlock(8, d_state=2)(torch.zeros(shape), size)


def test_unknown_argument():
    with pytest.raises(TypeError, match="window_size"):
        VSSBlock(8, window_size=8)  # pyright: ignore[reportCallIssue]
