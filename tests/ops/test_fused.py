"""The fused layers against torch's, on every instruction set, number of threads and odd size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops import fused, native, operators  # noqa: F401, operators defines the schemas

TOLERANCE = 1e-5  # of the largest number of the result; float32 sums of up to 200 products in another order
ops = torch.ops.mambair


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if not native.load() or request.param not in native.supported_isas():
        pytest.skip(f"this machine cannot run {request.param}")
    yield native.use_isa(request.param)
    native.use_isa("")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def compare(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


# tokens, channels, outputs: one of all; less and more than a vector, a tile, a stripe, a thread's share; several panels
SHAPES = [((1,), 1, 1), ((2, 3, 5), 7, 18), ((1, 37), 60, 72), ((2, 17, 19), 72, 60), ((3, 300), 20, 205)]


@pytest.mark.parametrize(("tokens", "channels", "outputs"), SHAPES)
@pytest.mark.parametrize("form", ["plain", "norm", "gated", "gate and residual"])
def test_token_layers(isa, threads, tokens, channels, outputs, form) -> None:
    x, weight, bias = numbers(*tokens, channels) + 3, numbers(outputs, channels), numbers(outputs)
    norm = (1 + 0.1 * numbers(channels), numbers(channels), 1e-5)
    normed = x if form == "plain" else F.layer_norm(x, (channels,), *norm)
    norm = (None, None, 0.0) if form == "plain" else norm
    if form == "gate and residual":
        gate, residual, scale = numbers(*tokens, channels), numbers(*tokens, outputs), numbers(outputs)
        y, rest = ops.token_layers(x, *norm, gate, weight, None, residual, scale, False)
        compare(y, F.linear(normed * gate, weight) + residual * scale)
    elif form == "gated":
        weight, bias = torch.cat((weight, weight.flip(0))), torch.cat((bias, bias + 1))
        y, rest = ops.token_layers(x, *norm, None, weight, bias, None, None, True)
        values, gate = F.linear(normed, weight, bias).chunk(2, -1)
        compare(y, values)
        compare(rest, F.silu(gate))
        return
    else:
        y, rest = ops.token_layers(x, *norm, None, weight, bias, None, None, False)
        compare(y, F.linear(normed, weight, bias))
    assert rest.shape == (0,)


IMAGES = [(1, 1, 1, 1), (1, 2, 70, 5), (2, 9, 7, 30), (1, 40, 33, 72)]


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize(("activation", "dilation"), [("silu", 1), ("gelu", 1), ("none", 2), ("none", 3)])
def test_depthwise_layers(isa, threads, shape, activation, dilation) -> None:
    channels = shape[3]
    x, taps, bias = numbers(*shape), numbers(channels, 1, 3, 3), numbers(channels)
    weight, shift = numbers(19, channels), numbers(19)
    y, product = ops.depthwise_layers(x, taps, bias, dilation, activation, weight, shift, True)
    image = F.conv2d(x.permute(0, 3, 1, 2), taps, bias, padding=dilation, dilation=dilation, groups=channels)
    expected = {"silu": F.silu, "gelu": F.gelu, "none": lambda t: t}[activation](image).permute(0, 2, 3, 1)
    compare(y, expected)
    compare(product, F.linear(expected, weight, shift))
    dropped, same = ops.depthwise_layers(x, taps, bias, dilation, activation, weight, shift, False)
    assert dropped.shape == (0,) and torch.equal(same, product)
    alone, nothing = ops.depthwise_layers(x, taps, bias, dilation, activation, None, None, True)
    assert nothing.shape == (0,) and torch.equal(alone, y)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5, 60), (3, 300, 18)])
def test_scaled_sum(isa, threads, shape) -> None:
    x, y, x_scale, y_scale = numbers(*shape), numbers(*shape) + 1, numbers(shape[0], shape[-1]), numbers(shape[-1])
    expected = x * x_scale.view(shape[0], *[1] * (len(shape) - 2), shape[-1]) + y * y_scale
    compare(ops.scaled_sum(x, x_scale, y, y_scale), expected)


def test_results_depend_on_no_batch_or_threads(isa) -> None:
    x, weight, taps = numbers(3, 21, 37, 24), numbers(50, 24), numbers(24, 1, 3, 3)

    def both(images: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.ones(24), torch.zeros(24), 1e-5
        tokens = ops.token_layers(images, *norm, None, weight, None, None, None, True)[1]
        return tokens, ops.depthwise_layers(images, taps, None, 1, "silu", weight, None, False)[1]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = both(x)
    torch.set_num_threads(2)
    found, last = both(x), both(x[2:])
    torch.set_num_threads(before)
    assert all(map(torch.equal, found, expected))
    assert all(torch.equal(a, b[2:]) for a, b in zip(last, expected, strict=True))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_far_from_zero(isa, activation) -> None:
    x = torch.tensor([-1e30, -200.0, -88.0, -20.0, -5.0, -0.0, 1e-30, 5.0, 200.0, 1e30, float("inf"), float("nan")])
    taps = torch.zeros(12, 1, 3, 3)
    taps[:, 0, 1, 1] = 1
    y, _ = ops.depthwise_layers(x.view(1, 1, 1, 12), taps, None, 1, activation, None, None, True)
    expected = {"silu": F.silu, "gelu": F.gelu}[activation](x.double()).float()  # float32 F.gelu(inf) is NaN
    torch.testing.assert_close(y.flatten(), expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("gated", [False, True])
def test_opcheck(gated) -> None:
    if not native.load():
        pytest.skip(f"no native library: {native.why_not()}")
    x, taps, weight = numbers(2, 3, 4, 6), numbers(6, 1, 3, 3), numbers(8, 6)
    arguments = (x, numbers(6), numbers(6), 1e-5, x, weight, None, None, None, gated)
    torch.library.opcheck(ops.token_layers.default, arguments)
    torch.library.opcheck(ops.depthwise_layers.default, (x, taps, None, 2, "silu", weight, None, gated))
    torch.library.opcheck(ops.scaled_sum.default, (x, numbers(2, 6), x + 1, numbers(6)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: ops.token_layers(x, None, None, 0.0, None, numbers(8, 5), None, None, None, False), "x must have"),
        (lambda x: ops.token_layers(x, x, None, 0.0, None, numbers(8, 6), None, None, None, False), "come together"),
        (lambda x: ops.token_layers(x, None, None, 0.0, None, numbers(7, 6), None, None, None, True), "even number"),
        (lambda x: ops.token_layers(x.double(), None, None, 0.0, None, x[0, 0], None, None, None, False), "float32"),
        (
            lambda x: ops.depthwise_layers(x, numbers(6, 1, 3, 3), None, 1, "tanh", None, None, True),
            "silu or gelu",
        ),
        (lambda x: ops.depthwise_layers(x, numbers(5, 1, 3, 3), None, 1, "none", None, None, True), "weight must have"),
        (lambda x: ops.depthwise_layers(x, numbers(6, 1, 3, 3), None, 0, "none", None, None, True), "at least 1"),
        (lambda x: ops.depthwise_layers(x, numbers(6, 1, 3, 3), None, 1, "none", None, None, False), "nothing to"),
        (lambda x: ops.scaled_sum(x, numbers(2, 5), x, numbers(6)), "x_scale must have"),
    ],
    ids=["channels", "norm", "odd", "double", "activation", "taps", "dilation", "nothing", "scales"],
)
def test_wrong_arguments(call, words) -> None:
    if not native.load():
        pytest.skip(f"no native library: {native.why_not()}")
    with pytest.raises(RuntimeError, match=words):
        call(numbers(2, 3, 4, 6))


def test_rules(monkeypatch) -> None:
    x = torch.zeros(1, 2, 2, 4)
    assert fused.why_not(x) == "they have no gradients"
    with torch.no_grad():
        assert fused.why_not(x.double()) == "they compute in float32"
        assert fused.why_not(x.to("meta")) == "they run on the CPU"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert fused.why_not(x) == "they compute in float32"
        monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "torch")
        assert fused.why_not(x) == "MAMBAIR_SCAN_BACKEND asks for other code"
        monkeypatch.setenv("MAMBAIR_FUSED", "0")
        assert fused.why_not(x) == "MAMBAIR_FUSED=0"
