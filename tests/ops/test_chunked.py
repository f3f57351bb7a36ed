"""The pure-torch path alone: derivatives of every order, block and run boundaries, memory, transforms of torch.func."""

from __future__ import annotations

import pytest
import torch

from mambair.ops import chunked, reference, ss2d_scan


@pytest.fixture(params=[(1, 1), (60, 1), (60, 30), (200, 60), (10**6, 10**6)], ids=lambda s: f"block{s[0]}-runs{s[1]}")
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one token, of several, and one for all; runs one after the other and side by side."""
    monkeypatch.setattr(chunked, "_CPU", chunked._Sizes(*request.param))


@pytest.mark.parametrize("length", [1, 3, 37])
def test_boundaries_of_blocks_and_runs(length, sizes, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(L=length, dtype=torch.float64, grad=True)
    results = [scan(**inputs, delta_softplus=True) for scan in (chunked.selective_scan, reference.selective_scan)]
    for found, truth in zip(*results, strict=True):
        assert relative_error(found, truth) < 1e-14
    tensors = [t for t in inputs.values() if t.requires_grad]
    upstream = [torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(7)) for t in results[0]]
    for found, truth in zip(*(torch.autograd.grad(r, tensors, upstream) for r in results), strict=True):
        assert relative_error(found, truth) < 1e-13


def test_boundaries_of_an_image(sizes, ss2d_inputs, relative_error) -> None:
    inputs = ss2d_inputs(H=3, W=5, dtype=torch.float64)
    assert relative_error(chunked.ss2d_scan(**inputs), reference.ss2d_scan(**inputs)) < 1e-14


def test_directions_of_a_large_image_one_by_one(monkeypatch, ss2d_inputs, relative_error) -> None:
    inputs = ss2d_inputs(dtype=torch.float64)
    truth = reference.ss2d_scan(**inputs)
    monkeypatch.setattr(chunked, "_LARGE_IMAGE", 0)
    calls = []
    original = chunked._some_directions
    monkeypatch.setattr(chunked, "_some_directions", lambda *a: calls.append(a[-1]) or original(*a))
    with torch.no_grad():
        assert relative_error(chunked.ss2d_scan(**inputs), truth) < 1e-14
    assert [list(c) for c in calls] == [[0], [1], [2], [3]]
    chunked.ss2d_scan(**inputs)
    assert len(calls) == 5


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_CPU", chunked._Sizes(block=12, runs=8))


def test_gradcheck_and_gradgradcheck(small_blocks, selective_inputs) -> None:
    inputs = selective_inputs(B=1, L=4, D=2, N=1, G=1, dtype=torch.float64, grad=True)
    index = inputs.pop("index")

    def run(*tensors):
        return chunked.selective_scan(**dict(zip(inputs, tensors, strict=True)), delta_softplus=True, index=index)

    assert torch.autograd.gradcheck(run, tuple(inputs.values()))
    assert torch.autograd.gradgradcheck(run, tuple(inputs.values()), fast_mode=True)


def test_gradcheck_and_gradgradcheck_ss2d(small_blocks, ss2d_inputs) -> None:
    inputs = ss2d_inputs(B=1, H=2, W=2, D=1, N=1, R=1, dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(chunked.ss2d_scan, tuple(inputs.values()))
    assert torch.autograd.gradgradcheck(chunked.ss2d_scan, tuple(inputs.values()), fast_mode=True)


def test_forward_of_a_long_scan_holds_one_block(selective_inputs) -> None:
    """No array that lives through the scan has L * D * N numbers, not even for a gradient."""
    inputs = selective_inputs(B=1, L=4096, D=8, N=16, G=1, optional=False, grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        chunked.selective_scan(**inputs, delta_softplus=True)
    assert max(kept) < 4096 * 8 * 16 * 4 / 4


@pytest.mark.parametrize(
    "mapped", [("u",), ("A",), ("initial_state",), ("delta", "B"), ("u", "A", "C", "initial_state")]
)
def test_vmap_and_gradients_of_each_sample(mapped, small_blocks, selective_inputs) -> None:
    inputs = selective_inputs(B=2, L=6, D=2, N=2, G=1, dtype=torch.float64)
    inputs = {k: inputs[k] for k in ("u", "delta", "A", "B", "C", "initial_state")}
    names = list(inputs)
    values = [torch.stack([t, 1.1 * t, 0.9 * t]) if k in mapped else t for k, t in inputs.items()]
    dims = tuple(0 if k in mapped else None for k in names)

    def loss(*tensors):
        y, state = chunked.selective_scan(**dict(zip(names, tensors, strict=True)), delta_softplus=True)
        return y.square().sum() + state.sum()

    found = torch.func.vmap(torch.func.grad_and_value(loss, argnums=tuple(range(6))), dims)(*values)
    for i in range(3):
        one = [v if d is None else v[i] for v, d in zip(values, dims, strict=True)]
        grads, value = torch.func.grad_and_value(loss, argnums=tuple(range(6)))(*one)
        torch.testing.assert_close(found[1][i], value)
        for f, g in zip(found[0], grads, strict=True):
            torch.testing.assert_close(f[i], g)


def test_meta_device(ss2d_inputs) -> None:
    inputs = {k: t.to("meta") for k, t in ss2d_inputs().items()}
    assert chunked.ss2d_scan(**inputs).shape == (2, 5, 7, 6)


def test_compile_and_export(monkeypatch, ss2d_inputs) -> None:
    """The loops are unrolled into the graph, so it is made for one image size."""
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "torch")
    torch.compiler.reset()
    inputs = ss2d_inputs(B=1, H=3, W=4, grad=True)
    truth = reference.ss2d_scan(**inputs)
    y = torch.compile(ss2d_scan, fullgraph=True, dynamic=False, backend="aot_eager")(**inputs)
    torch.testing.assert_close(y, truth, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(7))
    tensors = list(inputs.values())
    for f, t in zip(*(torch.autograd.grad(r, tensors, upstream) for r in (y, truth)), strict=True):
        torch.testing.assert_close(f, t, rtol=1e-4, atol=1e-4)

    class Scan(torch.nn.Module):
        def forward(self, x, projection, dt_weight, dt_bias, A, D):
            return ss2d_scan(x, projection, dt_weight, dt_bias, A, D)

    with torch.no_grad():
        program = torch.export.export(Scan(), tuple(tensors))
    assert "mambair" not in str(program.graph)
    torch.testing.assert_close(program.module()(*tensors), truth, rtol=1e-5, atol=1e-5)
