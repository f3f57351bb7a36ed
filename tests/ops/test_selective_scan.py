"""The public one-dimensional scan on every backend of the CPU, against the definition in float64."""

from __future__ import annotations

import pytest
import torch

from mambair.ops import reference, selective_scan

# float32 against float64. The bound asked of the kernels is 2e-7 for outputs and 1e-6 (3e-6 for sums over all tokens)
# for gradients of well-scaled inputs; tiny tensors have no averaging, so a few rounding errors more.
FORWARD, BACKWARD = 5e-7, 3e-6

SHAPES = {
    "one-token": {"L": 1},
    "one-of-all": {"B": 1, "L": 1, "D": 1, "N": 1, "G": 1},
    "odd": {"B": 3, "L": 37, "D": 5, "N": 7, "G": 5},
    "chunk-of-64": {"B": 1, "L": 64, "D": 4, "N": 2},
    "chunk-and-one": {"B": 1, "L": 65, "D": 16, "N": 16, "G": 1},
    "tail-of-vectors": {"B": 1, "L": 19, "D": 17, "N": 10, "G": 1},
    "long": {"B": 1, "L": 331, "D": 4, "N": 4},
    "many-states": {"B": 1, "L": 9, "D": 2, "N": 256, "G": 1},
}


def gradients(outputs, inputs, upstream):
    names = [name for name, t in inputs.items() if t.requires_grad]
    found = torch.autograd.grad(outputs, [inputs[n] for n in names], upstream, allow_unused=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_the_definition(shape, optional, backend, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(**shape, optional=optional, grad=True)
    exact = {k: t if k == "index" else t.detach().double().requires_grad_() for k, t in inputs.items()}
    found = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    truth = reference.selective_scan(**exact, delta_softplus=True)
    assert found[1].dtype == torch.float32
    for f, t in zip(found, truth, strict=True):
        assert relative_error(f, t) < FORWARD
    upstream = [torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(7)) for t in truth]
    wanted = gradients(truth, exact, upstream)
    for name, grad in gradients(found, inputs, [t.float() for t in upstream]).items():
        assert relative_error(grad, wanted[name]) < BACKWARD, name


def test_without_softplus_and_with_negative_steps(backend, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(optional=False)
    inputs["delta"] = 0.05 * inputs["delta"]  # a negative step makes the state grow; keep that moderate
    exact = {k: t.double() for k, t in inputs.items()}
    assert relative_error(selective_scan(**inputs), reference.selective_scan(**exact)[0]) < FORWARD


def test_float64_takes_the_torch_path_to_float64_accuracy(selective_inputs, relative_error) -> None:
    inputs = selective_inputs(L=100, dtype=torch.float64)
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    truth, last = reference.selective_scan(**inputs, delta_softplus=True)
    assert y.dtype == state.dtype == torch.float64
    assert relative_error(y, truth) < 1e-14
    assert relative_error(state, last) < 1e-14


def test_one_float64_input_raises_all_arithmetic(selective_inputs, relative_error) -> None:
    inputs = selective_inputs(L=100)
    exact = {k: t if k == "index" else t.double() for k, t in inputs.items()}
    inputs["A"] = exact["A"]
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    assert y.dtype == torch.float32
    assert relative_error(state, reference.selective_scan(**exact, delta_softplus=True)[1]) < 1e-14


@pytest.mark.parametrize("wanted", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_one_gradient_alone(wanted, backend, selective_inputs) -> None:
    inputs = selective_inputs(grad=True)
    whole = gradients(selective_scan(**inputs, delta_softplus=True).square().sum(), inputs, None)
    alone = {k: t.detach().requires_grad_(k == wanted) if k != "index" else t for k, t in inputs.items()}
    found = gradients(selective_scan(**alone, delta_softplus=True).square().sum(), alone, None)
    assert found.keys() == {wanted}
    torch.testing.assert_close(found[wanted], whole[wanted])


def test_gradient_of_the_last_state_alone(backend, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(grad=True)
    exact = {k: t if k == "index" else t.detach().double().requires_grad_() for k, t in inputs.items()}
    _, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    _, truth = reference.selective_scan(**exact, delta_softplus=True)
    wanted = gradients(truth.square().sum(), exact, None)
    for name, grad in gradients(state.square().sum(), inputs, None).items():
        if wanted[name] is None:
            assert grad is None or not grad.any(), name
        else:
            assert relative_error(grad, wanted[name]) < BACKWARD, name


def test_two_halves_joined_by_the_state(backend, selective_inputs) -> None:
    inputs = selective_inputs(L=50, optional=False)
    whole, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    per_token = ("u", "delta", "B", "C")
    first = {k: t[:, :23] if k in per_token else t for k, t in inputs.items()}
    second = {k: t[:, 23:] if k in per_token else t for k, t in inputs.items()}
    y1, state = selective_scan(**first, delta_softplus=True, return_last_state=True)
    y2, end = selective_scan(**second, delta_softplus=True, initial_state=state, return_last_state=True)
    torch.testing.assert_close(torch.cat([y1, y2], 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(end, last, rtol=1e-5, atol=1e-6)


def test_index_gathers_in_and_scatters_out(backend, selective_inputs) -> None:
    inputs = selective_inputs()
    order = inputs.pop("index")
    rows = torch.arange(len(order)).unsqueeze(1)
    y = selective_scan(**inputs, index=order, delta_softplus=True)
    sorted_inputs = {k: t[rows, order] if k in ("u", "delta", "B", "C", "z") else t for k, t in inputs.items()}
    torch.testing.assert_close(y[rows, order], selective_scan(**sorted_inputs, delta_softplus=True))


def test_an_index_out_of_range_is_an_error(backend, selective_inputs) -> None:
    inputs = selective_inputs(L=5)
    inputs["index"] = inputs["index"] + 1
    with pytest.raises(RuntimeError, match=r"index"):
        selective_scan(**inputs)


def test_strided_views_equal_copies(backend, selective_inputs) -> None:
    inputs = selective_inputs(optional=False, grad=False)
    wide = torch.randn(2, 21, 13, generator=torch.Generator().manual_seed(7))
    wide[..., 1:7], wide[..., 7:13] = inputs["u"], inputs["delta"]
    views = inputs | {
        "u": wide[..., 1:7],
        "delta": wide[..., 7:13],
        "A": inputs["A"].T.contiguous().T,
        "B": inputs["B"].permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        "C": inputs["C"][:, :, :1].expand(-1, -1, 2, -1),
    }
    copies = {k: t.contiguous() for k, t in views.items()}
    torch.testing.assert_close(selective_scan(**views), selective_scan(**copies), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_the_float32_scan_rounded_once(dtype, backend, selective_inputs) -> None:
    inputs = selective_inputs(dtype=dtype)
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    raised = {k: t if k == "index" else t.float() for k, t in inputs.items()}
    whole, last = selective_scan(**raised, delta_softplus=True, return_last_state=True)
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    torch.testing.assert_close(y, whole.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-6, atol=1e-6)


def test_mixed_dtypes_and_gradients_in_the_dtype_of_each_input(backend, selective_inputs) -> None:
    inputs = selective_inputs(grad=False)
    types = {"u": torch.bfloat16, "delta": torch.float32, "B": torch.float16, "z": torch.bfloat16, "D": torch.float16}
    inputs = {k: t.to(types.get(k, t.dtype)) for k, t in inputs.items()}
    inputs = {k: t if k == "index" else t.requires_grad_() for k, t in inputs.items()}
    y = selective_scan(**inputs, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    for name, grad in gradients(y.float().sum(), inputs, None).items():
        assert grad.dtype == inputs[name].dtype, name


def test_autocast_changes_nothing(backend, selective_inputs) -> None:
    inputs = selective_inputs(grad=True)
    plain = selective_scan(**inputs, delta_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = selective_scan(**inputs, delta_softplus=True)
    found = gradients(cast.sum(), inputs, None)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)
    for name, grad in gradients(plain.sum(), inputs, None).items():
        torch.testing.assert_close(found[name], grad, rtol=0, atol=0)


def test_nan_poisons_its_channel_downstream_and_nothing_else(backend, selective_inputs) -> None:
    inputs = selective_inputs(B=2, L=70, D=4, N=2, G=4, optional=False)
    clean = selective_scan(**inputs, delta_softplus=True)
    inputs["u"][1, 30, 2] = float("nan")
    y = selective_scan(**inputs, delta_softplus=True)
    poisoned = torch.zeros_like(y, dtype=torch.bool)
    poisoned[1, 30:, 2] = True
    assert torch.equal(y.isnan(), poisoned)
    torch.testing.assert_close(y[~poisoned], clean[~poisoned], rtol=0, atol=0)


@pytest.mark.parametrize("step", [1e-30, 1e4, 1e30], ids=["tiny", "large", "huge"])
def test_no_nan_from_finite_input(step, backend, selective_inputs, relative_error) -> None:
    """A decay that underflows to 0 in the middle of a chunk must not be divided by."""
    inputs = selective_inputs(L=80, optional=False, grad=True)
    inputs["delta"] = torch.full_like(inputs["delta"], step).requires_grad_()
    inputs["u"] = (inputs["u"].detach() / step).requires_grad_()
    y = selective_scan(**inputs)
    assert relative_error(y, reference.selective_scan(**{k: t.double() for k, t in inputs.items()})[0]) < FORWARD
    assert all(grad.isfinite().all() for grad in gradients(y.sum() / y.numel(), inputs, None).values())


@pytest.mark.parametrize("rate", [0.0, 0.05], ids=["no-decay", "growth"])
def test_rates_that_are_not_negative(rate, backend, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(optional=False)
    inputs["A"] = torch.full_like(inputs["A"], rate)
    exact = {k: t.double() for k, t in inputs.items()}
    found = selective_scan(**inputs, delta_softplus=True)
    assert relative_error(found, reference.selective_scan(**exact, delta_softplus=True)[0]) < FORWARD


@pytest.mark.parametrize("shape", [{"B": 0}, {"L": 0}], ids=["no-samples", "no-tokens"])
def test_empty(shape, backend, selective_inputs) -> None:
    inputs = selective_inputs(**shape, grad=True)
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    assert y.shape == inputs["u"].shape
    torch.testing.assert_close(state, inputs["initial_state"].detach())
    for name, grad in gradients(y.sum() + state.sum(), inputs, None).items():
        if grad is not None:
            assert grad.shape == inputs[name].shape


ERRORS = {
    "dimensions": ({"u": (2, 21)}, "u must have the 3 dimensions [B, L, D]; found [2, 21]"),
    "delta": ({"delta": (2, 20, 6)}, "delta must be [B, L, D] as u = [2, 21, 6]; found [2, 20, 6]"),
    "A": ({"A": (5, 3)}, "A must be [D, N] = [6, 3]; found [5, 3]"),
    "groups": ({"B": (2, 21, 4, 3)}, "B: the number of groups G must divide the 6 channels of u; found G = 4"),
    "C": ({"C": (2, 21, 1, 3)}, "C must be [B, L, G, N] as B = [2, 21, 2, 3]; found [2, 21, 1, 3]"),
    "D": ({"D": (1,)}, "D must be [D] = [6]; found [1]"),
    "state": ({"initial_state": (2, 3, 6)}, "initial_state must be [B, D, N] = [2, 6, 3]; found [2, 3, 6]"),
}


@pytest.mark.parametrize(("change", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_shape_errors_name_argument_rule_and_finding(change, message, selective_inputs) -> None:
    inputs = selective_inputs() | {name: torch.zeros(shape) for name, shape in change.items()}
    with pytest.raises(ValueError) as caught:
        selective_scan(**inputs)
    assert str(caught.value) == message


def test_dtype_and_device_errors(selective_inputs) -> None:
    inputs = selective_inputs()
    with pytest.raises(ValueError, match=r"z must be float32, bfloat16, float16 or float64; found torch.int64"):
        selective_scan(**inputs | {"z": torch.zeros(2, 21, 6, dtype=torch.int64)})
    with pytest.raises(ValueError, match=r"A must be on cpu as u; found meta"):
        selective_scan(**inputs | {"A": inputs["A"].to("meta")})
    with pytest.raises(ValueError, match=r"index must be int64; found torch.int32"):
        selective_scan(**inputs | {"index": inputs["index"].int()})
    with pytest.raises(ValueError, match=r"index must be \[B, L\] = \[2, 21\] on cpu; found \[2, 20\] on cpu"):
        selective_scan(**inputs | {"index": inputs["index"][:, 1:]})
