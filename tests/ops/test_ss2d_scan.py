"""The public two-dimensional scan on every backend of the CPU, against the definition in float64."""

from __future__ import annotations

import itertools

import pytest
import torch

from mambair.ops import reference, ss2d_scan

# As in test_selective_scan.py.
FORWARD, BACKWARD = 5e-7, 3e-6

SHAPES = {
    "one-pixel": {"B": 1, "H": 1, "W": 1},
    "one-of-all": {"B": 1, "H": 1, "W": 1, "D": 1, "N": 1, "R": 1},
    "row": {"H": 1, "W": 13},
    "column": {"H": 13, "W": 1},
    "primes": {"B": 3, "H": 7, "W": 11, "D": 5, "N": 7, "R": 3},
    "chunk-of-64": {"B": 1, "H": 8, "W": 8, "D": 15},
    "tail-of-vectors": {"B": 1, "H": 5, "W": 13, "D": 17, "N": 10, "R": 4},
    "rank-33": {"B": 1, "H": 4, "W": 5, "R": 33},
    "three-chunks": {"B": 1, "H": 9, "W": 17, "D": 16, "N": 16, "R": 12},
}


def gradients(output, inputs, upstream=None):
    names = [name for name, t in inputs.items() if t.requires_grad]
    return dict(zip(names, torch.autograd.grad(output, [inputs[n] for n in names], upstream), strict=True))


def exact_copy(inputs):
    return {k: t.detach().double().requires_grad_() for k, t in inputs.items()}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_the_definition(shape, backend, ss2d_inputs, relative_error) -> None:
    inputs = ss2d_inputs(**shape, grad=True)
    exact = exact_copy(inputs)
    found, truth = ss2d_scan(**inputs), reference.ss2d_scan(**exact)
    assert relative_error(found, truth) < FORWARD
    upstream = torch.randn(truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(7))
    wanted = gradients(truth, exact, upstream)
    for name, grad in gradients(found, inputs, upstream.float()).items():
        assert relative_error(grad, wanted[name]) < BACKWARD, name


DIRECTIONS = [
    *itertools.chain.from_iterable(itertools.combinations(range(4), k) for k in (1, 2, 3)),
    (3, 1, 2, 0),
    (1, 1),
    (0, 2, 2, 0, 3),
]


@pytest.mark.parametrize("directions", DIRECTIONS, ids=str)
def test_subsets_orders_and_repeats_of_directions(directions, backend, ss2d_inputs, relative_error) -> None:
    inputs = ss2d_inputs(B=1, K=len(directions), grad=True)
    exact = exact_copy(inputs)
    found = ss2d_scan(**inputs, directions=directions)
    truth = reference.ss2d_scan(**exact, directions=directions)
    assert relative_error(found, truth) < FORWARD
    wanted = gradients(truth.square().sum(), exact)
    for name, grad in gradients(found.square().sum(), inputs).items():
        assert relative_error(grad, wanted[name]) < BACKWARD, name


TURNS = {
    "rows": lambda t: t,
    "columns": lambda t: t.transpose(1, 2),
    "rows-backwards": lambda t: t.flip(1, 2),
    "columns-backwards": lambda t: t.transpose(1, 2).flip(1, 2),
}


@pytest.mark.parametrize(("direction", "turn"), list(enumerate(TURNS.values())), ids=TURNS.keys())
def test_a_direction_is_the_row_scan_of_a_turned_image(direction, turn, backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(H=4, W=6, K=1)
    turned = inputs | {"x": turn(inputs["x"]), "projection": turn(inputs["projection"])}
    y = ss2d_scan(**inputs, directions=[direction])
    torch.testing.assert_close(turn(y), ss2d_scan(**turned, directions=[0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wanted", ["x", "projection", "dt_weight", "dt_bias", "A", "D"])
def test_one_gradient_alone(wanted, backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)
    whole = gradients(ss2d_scan(**inputs).square().sum(), inputs)
    alone = {k: t.detach().requires_grad_(k == wanted) for k, t in inputs.items()}
    torch.testing.assert_close(gradients(ss2d_scan(**alone).square().sum(), alone)[wanted], whole[wanted])


def test_strided_views_equal_copies(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(B=2, D=6)
    both = torch.randn(2, 5, 7, 12, generator=torch.Generator().manual_seed(7))
    views = {
        "a half of a wider tensor": both[..., 6:],
        "channels first": both[..., :6].permute(0, 3, 1, 2).contiguous(),
    }
    views["channels first"] = views["channels first"].permute(0, 2, 3, 1)
    views["expanded"] = both[:1, :, :, :6].expand(2, -1, -1, -1)
    for name, view in views.items():
        y = ss2d_scan(**inputs | {"x": view})
        assert y.is_contiguous(), name
        torch.testing.assert_close(y, ss2d_scan(**inputs | {"x": view.contiguous()}), rtol=0, atol=0, msg=name)


def test_expanded_upstream_gradient(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)
    wanted = gradients(ss2d_scan(**inputs), inputs, torch.ones(2, 5, 7, 6))
    for name, grad in gradients(ss2d_scan(**inputs).sum(), inputs).items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_the_float32_scan_rounded_once(dtype, backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(dtype=dtype)
    y = ss2d_scan(**inputs)
    assert y.dtype == dtype
    whole = ss2d_scan(**{k: t.float() for k, t in inputs.items()})
    torch.testing.assert_close(y, whole.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_mixed_dtypes_and_gradients_in_the_dtype_of_each_input(backend, ss2d_inputs) -> None:
    types = {"x": torch.bfloat16, "dt_weight": torch.float16, "D": torch.bfloat16}
    inputs = {k: t.to(types.get(k, t.dtype)).requires_grad_() for k, t in ss2d_inputs().items()}
    y = ss2d_scan(**inputs)
    assert y.dtype == torch.bfloat16
    for name, grad in gradients(y.float().sum(), inputs).items():
        assert grad.dtype == inputs[name].dtype, name


def test_autocast_changes_nothing(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)
    plain = ss2d_scan(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = ss2d_scan(**inputs)
    found = gradients(cast.sum(), inputs)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)
    for name, grad in gradients(plain.sum(), inputs).items():
        torch.testing.assert_close(found[name], grad, rtol=0, atol=0)


def test_nan_poisons_its_channel_downstream_and_nothing_else(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(B=2, H=9, W=11, K=1)
    clean = ss2d_scan(**inputs, directions=[1])
    inputs["x"][0, 4, 3, 5] = float("nan")
    y = ss2d_scan(**inputs, directions=[1])
    order = reference.scan_order(1, 9, 11).tolist()
    poisoned = torch.zeros_like(y, dtype=torch.bool)
    poisoned.view(2, 99, 6)[0, order[order.index(4 * 11 + 3) :], 5] = True
    assert torch.equal(y.isnan(), poisoned)
    torch.testing.assert_close(y[~poisoned], clean[~poisoned], rtol=0, atol=0)


def test_float64(ss2d_inputs, relative_error) -> None:
    inputs = ss2d_inputs(H=9, W=13, dtype=torch.float64)
    y = ss2d_scan(**inputs)
    assert y.dtype == torch.float64
    assert relative_error(y, reference.ss2d_scan(**inputs)) < 1e-14


def test_no_samples(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(B=0, grad=True)
    y = ss2d_scan(**inputs)
    assert y.shape == (0, 5, 7, 6)
    assert not any(grad.any() for grad in gradients(y.sum(), inputs).values())


def test_without_gradient_nothing_is_recorded(backend, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)
    with torch.no_grad():
        assert not ss2d_scan(**inputs).requires_grad
    with torch.inference_mode():
        assert ss2d_scan(**inputs).is_inference()


ERRORS = {
    "dimensions": ({"x": (5, 7, 6)}, "x must have the 4 dimensions [B, H, W, D]; found [5, 7, 6]"),
    "projection": (
        {"projection": (2, 5, 7, 4, 9)},
        "projection must be [B, H, W, K, R + 2 N] = [2, 5, 7, 4, 8]; found [2, 5, 7, 4, 9]",
    ),
    "dt_weight": ({"dt_weight": (3, 6, 2)}, "dt_weight must be [K, D, R] = [4, 6, 2]; found [3, 6, 2]"),
    "A": ({"A": (24, 3)}, "A must have the 3 dimensions [K, D, N]; found [24, 3]"),
    "D": ({"D": (24,)}, "D must be [K, D] = [4, 6]; found [24]"),
}


@pytest.mark.parametrize(("change", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_shape_errors_name_argument_rule_and_finding(change, message, ss2d_inputs) -> None:
    inputs = ss2d_inputs() | {name: torch.zeros(shape) for name, shape in change.items()}
    with pytest.raises(ValueError) as caught:
        ss2d_scan(**inputs)
    assert str(caught.value) == message


@pytest.mark.parametrize("directions", [(), (0, 1, 2, 4), (-1, 0, 1, 2)], ids=["none", "four", "negative"])
def test_direction_errors(directions, ss2d_inputs) -> None:
    with pytest.raises(ValueError, match=r"directions must name at least one of 0 \(rows\), 1 .*; found \["):
        ss2d_scan(**ss2d_inputs(), directions=directions)
