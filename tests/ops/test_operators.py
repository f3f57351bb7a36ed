"""The operators as torch sees them: opcheck, compilation, export, second derivatives, torch.func, saved memory."""

from __future__ import annotations

import pytest
import torch

from mambair.ops import native, operators, reference, selective_scan, ss2d_scan

pytestmark = pytest.mark.skipif(not native.load(), reason=f"no native library: {native.why_not()}")


@pytest.fixture(autouse=True)
def on_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "native")
    torch.compiler.reset()


def ss2d_arguments(inputs, save_states=True, directions=(0, 1, 2, 3)):
    return (*inputs.values(), list(directions), save_states)


SELECTIVE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "index")


def selective_arguments(inputs, save_states=True):
    return (*(inputs.get(name) for name in SELECTIVE), True, save_states)


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_opcheck_ss2d_scan(grad, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=grad)
    torch.library.opcheck(torch.ops.mambair.ss2d_scan.default, ss2d_arguments(inputs, grad))
    half = {k: t.detach().to(torch.bfloat16 if k in ("x", "projection") else t.dtype) for k, t in inputs.items()}
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.mambair.ss2d_scan.default, ss2d_arguments(half, grad, (1, 1, 0, 2)), test_utils=utilities
    )


@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_opcheck_selective_scan(grad, optional, selective_inputs) -> None:
    inputs = selective_inputs(optional=optional, grad=grad)
    torch.library.opcheck(torch.ops.mambair.selective_scan.default, selective_arguments(inputs, grad))


def test_opcheck_of_both_backwards(ss2d_inputs, selective_inputs) -> None:
    image = ss2d_inputs()
    y, states = torch.ops.mambair.ss2d_scan(*ss2d_arguments(image))
    torch.library.opcheck(torch.ops.mambair.ss2d_scan_backward.default, (y, *image.values(), states, [0, 1, 2, 3]))
    tokens = selective_inputs()
    y, last, states = torch.ops.mambair.selective_scan(*selective_arguments(tokens))
    arguments = (y, last, *(tokens[name] for name in SELECTIVE), states, True)
    torch.library.opcheck(torch.ops.mambair.selective_scan_backward.default, arguments)


def test_states_are_saved_on_request_only(ss2d_inputs, selective_inputs) -> None:
    image, tokens = ss2d_inputs(B=2, H=9, W=8), selective_inputs(B=2, L=65)
    _, states = torch.ops.mambair.ss2d_scan(*ss2d_arguments(image))
    assert states.shape == (2, 4, 2, 3, 6)
    assert states.dtype == torch.float32
    assert torch.ops.mambair.ss2d_scan(*ss2d_arguments(image, False))[1].shape == (0,)
    *_, states = torch.ops.mambair.selective_scan(*selective_arguments(tokens))
    assert states.shape == (2, 2, 3, 6)
    torch.testing.assert_close(states[:, 0], tokens["initial_state"].transpose(1, 2))
    assert torch.ops.mambair.selective_scan(*selective_arguments(tokens, False))[2].shape == (0,)


def test_a_gradient_without_saved_states_is_refused(ss2d_inputs, selective_inputs) -> None:
    y, _ = torch.ops.mambair.ss2d_scan(*ss2d_arguments(ss2d_inputs(grad=True), False))
    with pytest.raises(RuntimeError, match=r"ran with save_states=False, so it has no gradient"):
        y.sum().backward()
    y, *_ = torch.ops.mambair.selective_scan(*selective_arguments(selective_inputs(grad=True), False))
    with pytest.raises(RuntimeError, match=r"ran with save_states=False, so it has no gradient"):
        y.sum().backward()


def test_the_public_functions_ask_for_states_only_with_a_gradient(monkeypatch, ss2d_inputs) -> None:
    asked = []
    original = torch.ops.mambair.ss2d_scan
    monkeypatch.setattr(torch.ops.mambair, "ss2d_scan", lambda *a: asked.append(a[-1]) or original(*a))
    ss2d_scan(**ss2d_inputs())
    ss2d_scan(**ss2d_inputs(grad=True))
    with torch.no_grad():
        ss2d_scan(**ss2d_inputs(grad=True))
    assert asked == [False, True, False]


def test_what_is_kept_for_backward(ss2d_inputs) -> None:
    """The inputs and the chunk states; nothing of the size of the steps, the outputs of a direction or the states."""
    inputs, kept = ss2d_inputs(grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = ss2d_scan(**inputs)
    known = {t.data_ptr() for t in inputs.values()}
    assert sum(t.numel() for t in kept if t.data_ptr() not in known) == 2 * 4 * 1 * 3 * 6
    assert y.requires_grad


@pytest.mark.parametrize("scan", ["ss2d_scan", "selective_scan"])
def test_second_derivatives_are_refused(scan, ss2d_inputs, selective_inputs) -> None:
    if scan == "ss2d_scan":
        inputs = ss2d_inputs(grad=True)
        x, y = inputs["x"], ss2d_scan(**inputs)
    else:
        inputs = selective_inputs(grad=True)
        x, y = inputs["u"], selective_scan(**inputs)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*MAMBAIR_SCAN_BACKEND=torch"):
        grad.sum().backward()


def check_gradients(output, truth, inputs) -> None:
    tensors = [t for t in inputs.values() if t.requires_grad]
    upstream = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(output, tensors, upstream)
    for f, t in zip(found, torch.autograd.grad(truth, tensors, upstream), strict=True):
        torch.testing.assert_close(f, t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile_ss2d_scan(dynamic, ss2d_inputs) -> None:
    compiled = torch.compile(ss2d_scan, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for height, width in ((5, 7), (9, 4)) if dynamic else ((5, 7),):
        inputs = ss2d_inputs(H=height, W=width, grad=True)
        y = compiled(**inputs)
        check_gradients(y, reference.ss2d_scan(**inputs), inputs)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs), y)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile_selective_scan(dynamic, selective_inputs) -> None:
    def run(inputs):
        return selective_scan(**inputs, delta_softplus=True, return_last_state=True)

    compiled = torch.compile(run, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (21, 70) if dynamic else (21,):
        inputs = selective_inputs(L=length, grad=True)
        y, state = compiled(inputs)
        truth, last = reference.selective_scan(**inputs, delta_softplus=True)
        torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)
        check_gradients(y, truth, inputs)


@pytest.mark.slow
def test_compile_with_the_default_compiler(ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)
    y = torch.compile(ss2d_scan, fullgraph=True)(**inputs)
    check_gradients(y, reference.ss2d_scan(**inputs), inputs)


class Scan(torch.nn.Module):
    def forward(self, x, projection, dt_weight, dt_bias, A, D):
        return ss2d_scan(x, projection, dt_weight, dt_bias, A, D)


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_export_with_dynamic_image_size(strict, ss2d_inputs) -> None:
    size = {1: torch.export.Dim("H", min=1, max=64), 2: torch.export.Dim("W", min=1, max=64)}
    shapes = {"x": size, "projection": size, "dt_weight": None, "dt_bias": None, "A": None, "D": None}
    inputs = tuple(ss2d_inputs().values())
    with torch.no_grad():
        program = torch.export.export(Scan(), inputs, dynamic_shapes=shapes, strict=strict)
    assert "mambair.ss2d_scan" in str(program.graph)
    other = ss2d_inputs(H=3, W=11)
    torch.testing.assert_close(program.module()(*other.values()), ss2d_scan(**other))


def test_transforms_of_torch_func_take_the_torch_path(monkeypatch, ss2d_inputs) -> None:
    inputs = ss2d_inputs(grad=True)

    def loss(*tensors):
        return ss2d_scan(*tensors).square().sum()

    with pytest.raises(ValueError, match=r"MAMBAIR_SCAN_BACKEND=native: .* transforms of torch.func"):
        torch.func.grad(loss)(*inputs.values())
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    found = torch.func.grad(loss, argnums=tuple(range(6)))(*inputs.values())
    for f, t in zip(found, torch.autograd.grad(loss(*inputs.values()), list(inputs.values())), strict=True):
        torch.testing.assert_close(f, t, rtol=1e-4, atol=1e-4)


def test_forward_mode_is_refused_not_wrong(monkeypatch, ss2d_inputs) -> None:
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    inputs = ss2d_inputs()
    x, rest = inputs["x"], list(inputs.values())[1:]
    with pytest.raises(NotImplementedError, match=r"jvp"):
        torch.func.jvp(lambda t: ss2d_scan(t, *rest), (x,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match=r"jvp"):
        ss2d_scan(torch.autograd.forward_ad.make_dual(x, x), *rest)


def test_vmap_over_activations(monkeypatch, ss2d_inputs) -> None:
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    image = ss2d_inputs()
    many = {k: torch.stack([t, 2 * t, -t]) if k in ("x", "projection") else t for k, t in image.items()}
    dims = tuple(0 if k in ("x", "projection") else None for k in image)
    mapped = torch.vmap(ss2d_scan, dims)(*many.values())
    one = [ss2d_scan(many["x"][i], many["projection"][i], *list(many.values())[2:]) for i in range(3)]
    torch.testing.assert_close(mapped, torch.stack(one), rtol=1e-5, atol=1e-5)


def test_vmap_over_parameters(monkeypatch, ss2d_inputs) -> None:
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    inputs = ss2d_inputs()
    many = {k: torch.stack([t, 0.5 * t]) for k, t in inputs.items()}
    mapped = torch.vmap(ss2d_scan)(*many.values())
    one = [ss2d_scan(**{k: t[i] for k, t in many.items()}) for i in range(2)]
    torch.testing.assert_close(mapped, torch.stack(one), rtol=1e-5, atol=1e-5)


def test_the_chunk_of_the_states_is_part_of_the_contract() -> None:
    assert operators.STATE_CHUNK == 64
