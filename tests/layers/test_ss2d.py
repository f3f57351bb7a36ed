from __future__ import annotations

import pytest
import torch
from torch import nn

from mambair.layers import SS2D


def test_published_output_and_gradients(module_case, compare_gradients):
    case = module_case("ss2d")
    layer = SS2D(**case.kwargs).eval()
    layer.load_state_dict(case.weights)
    x = case.arrays["input"].requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, case.arrays["output"], atol=1e-5, rtol=0)
    y.backward(case.arrays["grad_output"])
    compare_gradients(layer, x, case)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5)], ids=str)
def test_any_size(size):
    layer = SS2D(8, d_state=3)
    x = torch.randn(2, *size, 8, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("direction", ["row", "column"])
def test_every_pixel_sees_the_whole_image(direction):
    torch.manual_seed(0)
    layer = SS2D(6, d_state=2).double()
    x = torch.randn(1, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    pixel = layer(x)[0, 2, 3] if direction == "row" else layer(x.transpose(1, 2))[0, 3, 2]
    pixel.square().sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


def test_input_need_not_be_contiguous():
    layer = SS2D(6, d_state=2).eval()
    x = torch.randn(1, 6, 5, 4).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), atol=1e-6, rtol=0)


def test_bias_is_split_like_the_weight():
    torch.manual_seed(0)
    layer = SS2D(4, d_state=2, bias=True).eval()
    nn.init.normal_(layer.in_proj.bias)
    x = torch.randn(1, 3, 3, 4)
    values, gate = layer._split(x)
    torch.testing.assert_close(torch.cat((values, gate), -1), layer.in_proj(x), atol=1e-6, rtol=0)


def test_low_precision_stays_near_float32():
    """bfloat16 has 8 bits: linear layers round to 2^-8, the scan must not add drift over 256 tokens to that."""
    torch.manual_seed(0)
    layer = SS2D(32).eval()
    x = torch.randn(1, 16, 16, 32)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.03 * exact.abs().max()


def test_changed_weights_are_seen_in_eval():
    layer = SS2D(4, d_state=2).eval()
    x = torch.randn(1, 6, 6, 4)
    with torch.no_grad():
        before = layer(x)
        layer.A_logs.data.add_(1.0)
        assert not torch.equal(before, layer(x))


def test_initial_values():
    layer = SS2D(32, d_state=4)
    assert layer.dt_rank == 2
    assert layer.d_inner == 64
    torch.testing.assert_close(layer.A_logs.exp()[5], torch.arange(1.0, 5.0))
    steps = nn.functional.softplus(layer.dt_projs_bias)
    assert steps.min() >= 1e-3 * 0.99
    assert steps.max() <= 1e-1 * 1.01


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [({"d_model": 0}, "d_model"), ({"d_model": 4, "d_conv": 4}, "odd"), ({"d_model": 4, "dt_init": "x"}, "dt_init")],
    ids=lambda v: str(v),
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        SS2D(**kwargs)
