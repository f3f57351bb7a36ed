"""The Triton kernels against the definition in float64: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

``test_triton_interpreted.py`` runs this file in the second way. The interpreter takes about a second for a tile of 16
tokens, so larger shapes are marked slow there.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

from mambair.ops import native, reference, selective_scan, ss2d_scan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a CUDA device; test_triton_interpreted.py runs it on a CPU", allow_module_level=True)

from mambair.ops.triton_kernels import launch  # noqa: E402

# As in test_ss2d_scan.py: tiny tensors have no averaging. Sums over all tokens are a few roundings worse.
FORWARD, BACKWARD = 5e-7, 3e-6
long = pytest.mark.slow if INTERPRETED else ()


@pytest.fixture(autouse=True)
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "triton")
    if INTERPRETED:
        assert native.library_path() is None, (
            "the native library was loaded before the interpreter could take its place"
        )


@pytest.fixture(autouse=True)
def small_tiles(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 tokens for the interpreter's quick tests: a padded token costs as much as a real one."""
    if INTERPRETED and request.node.get_closest_marker("slow") is None and "real_tiles" not in request.fixturenames:
        monkeypatch.setattr(launch, "TOKENS", 4)
        monkeypatch.setattr(launch, "CHUNK_TILES", 16)


@pytest.fixture
def real_tiles() -> None:
    """Ask for the tiles that GPUs use also in a quick test."""


def placed(inputs, grad=False):
    """Detached copies on the device of the tests."""
    return {k: t.detach().to(DEVICE).requires_grad_(grad and t.is_floating_point()) for k, t in inputs.items()}


def exact_copy(inputs):
    return {
        k: t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t
        for k, t in inputs.items()
    }


def gradients(outputs, inputs, upstream=None):
    names = [name for name, t in inputs.items() if t.requires_grad]
    found = torch.autograd.grad(outputs, [inputs[n] for n in names], upstream, allow_unused=True)
    return dict(zip(names, found, strict=True))


def upstream_for(*outputs):
    g = torch.Generator().manual_seed(7)
    return [torch.randn(t.shape, dtype=torch.float64, generator=g).to(DEVICE) for t in outputs]


def check_ss2d(inputs, directions, relative_error) -> None:
    inputs = placed(inputs, grad=True)
    exact = exact_copy(inputs)
    found = ss2d_scan(**inputs, directions=directions)
    truth = reference.ss2d_scan(**exact, directions=directions)
    assert found.is_contiguous()
    assert relative_error(found, truth) < FORWARD
    upstream = upstream_for(truth)
    wanted = gradients([truth], exact, upstream)
    for name, grad in gradients([found], inputs, [t.float() for t in upstream]).items():
        assert relative_error(grad, wanted[name]) < BACKWARD, name


IMAGES = {
    "one-of-all": ({"B": 1, "H": 1, "W": 1, "D": 1, "N": 1, "R": 1}, (0,)),
    "odd": ({"B": 2, "H": 3, "W": 3, "D": 3, "N": 1, "R": 3}, (3, 0)),
    "no-rank": ({"B": 1, "H": 3, "W": 3, "D": 2, "N": 1, "R": 0}, (2,)),
    "two-segments": ({"B": 1, "H": 13, "W": 5, "D": 2, "N": 1, "R": 1}, (1,)),
    "two-blocks": ({"B": 1, "H": 1, "W": 7, "D": 33, "N": 1, "R": 1}, (0,)),
}
LARGER_IMAGES = {
    "two-states": ({"B": 2, "H": 3, "W": 5, "D": 3, "N": 2, "R": 3}, (3, 0)),
    "four": ({"B": 1, "H": 5, "W": 7, "D": 6, "N": 3, "R": 2}, (0, 1, 2, 3)),
    "repeats": ({"B": 1, "H": 4, "W": 3, "D": 3, "N": 2, "R": 1}, (2, 2, 0, 1, 3)),
    "primes": ({"B": 2, "H": 7, "W": 13, "D": 17, "N": 3, "R": 4}, (0, 3)),
    "chunk-of-64": ({"B": 1, "H": 8, "W": 8, "D": 15, "N": 2, "R": 2}, (1, 2)),
    "wide-lines": ({"B": 1, "H": 17, "W": 19, "D": 3, "N": 1, "R": 1}, (1, 2)),
    "light": ({"B": 1, "H": 6, "W": 11, "D": 72, "N": 10, "R": 4}, (0,)),
    "many-states": ({"B": 1, "H": 1, "W": 4, "D": 3, "N": 256, "R": 2}, (0,)),
    "high-rank": ({"B": 1, "H": 4, "W": 5, "D": 9, "N": 3, "R": 33}, (3,)),
}


@pytest.mark.parametrize(("shape", "directions"), IMAGES.values(), ids=IMAGES.keys())
def test_ss2d_scan(shape, directions, ss2d_inputs, relative_error) -> None:
    check_ss2d(ss2d_inputs(**shape, K=len(directions)), directions, relative_error)


@pytest.mark.parametrize(
    ("shape", "directions"), [pytest.param(*v, id=k, marks=long) for k, v in LARGER_IMAGES.items()]
)
def test_ss2d_scan_larger(shape, directions, ss2d_inputs, relative_error) -> None:
    check_ss2d(ss2d_inputs(**shape, K=len(directions)), directions, relative_error)


SEQUENCES = {
    "one-token": {"B": 1, "L": 1, "D": 2, "N": 1, "G": 1},
    "groups": {"B": 1, "L": 17, "D": 4, "N": 1, "G": 2},
}
LARGER_SEQUENCES = {
    "odd": {"B": 3, "L": 37, "D": 5, "N": 7, "G": 5},
    "samples": {"B": 2, "L": 17, "D": 6, "N": 2, "G": 3},
    "chunk-of-64": {"B": 1, "L": 64, "D": 4, "N": 2},
    "chunk-and-one": {"B": 1, "L": 65, "D": 16, "N": 16, "G": 1},
    "two-blocks": {"B": 1, "L": 19, "D": 35, "N": 3, "G": 1},
    "many-groups": {"B": 1, "L": 3, "D": 40, "N": 1, "G": 40},
    "long": {"B": 1, "L": 331, "D": 4, "N": 2},
}


def check_selective(inputs, relative_error, softplus=True) -> None:
    inputs = placed(inputs, grad=True)
    exact = exact_copy(inputs)
    found = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True)
    truth = reference.selective_scan(**exact, delta_softplus=softplus)
    for f, t in zip(found, truth, strict=True):
        assert relative_error(f, t) < FORWARD
    upstream = upstream_for(*truth)
    wanted = gradients(truth, exact, upstream)
    for name, grad in gradients(found, inputs, [t.float() for t in upstream]).items():
        assert relative_error(grad, wanted[name]) < BACKWARD, name


@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
@pytest.mark.parametrize("shape", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_selective_scan(shape, optional, selective_inputs, relative_error) -> None:
    check_selective(selective_inputs(**shape, optional=optional), relative_error)


@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
@pytest.mark.parametrize("shape", [pytest.param(v, id=k, marks=long) for k, v in LARGER_SEQUENCES.items()])
def test_selective_scan_larger(shape, optional, selective_inputs, relative_error) -> None:
    check_selective(selective_inputs(**shape, optional=optional), relative_error)


def test_without_softplus(real_tiles, selective_inputs, relative_error) -> None:
    inputs = selective_inputs(B=1, L=9, D=3, N=1, G=1, optional=False)
    inputs["delta"] = 0.05 * inputs["delta"]  # some are negative: the state grows
    check_selective(inputs, relative_error, softplus=False)


CUTS = {"one-segment": 1, "a-segment-for-each-chunk": 2048}


@pytest.mark.parametrize("programs", [pytest.param(v, id=k, marks=long) for k, v in CUTS.items()])
def test_segments_and_groups_of_blocks_change_nothing(
    programs, monkeypatch, selective_inputs, ss2d_inputs, relative_error
) -> None:
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    check_selective(selective_inputs(B=1, L=130, D=3, N=1, G=1), relative_error)
    check_ss2d(ss2d_inputs(B=1, H=2, W=33, D=40, N=1, R=1, K=1), (0,), relative_error)


def test_channel_blocks_that_share_their_sums(monkeypatch, ss2d_inputs, relative_error) -> None:
    monkeypatch.setattr(launch, "PROGRAMS", 1)
    inputs = ss2d_inputs(B=1, H=1, W=5, D=34, N=1, R=1, K=1)
    assert launch.Sizes(1, 1, 1, 5, 34, 1, 1, (0,)).groups == 1
    check_ss2d(inputs, (0,), relative_error)


SIZES = [(1, 1), (3, 7), *(pytest.param(s, marks=long) for s in ((17, 19), (1, 40), (40, 1), (16, 16), (20, 5)))]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_packing_follows_the_order_of_the_scan(real_tiles, size) -> None:
    height, width = size
    directions = (0, 1, 2, 3)
    batch = 2 if height * width < 64 else 1
    sizes = launch.Sizes(batch, 4, height, width, 1, 1, 1, directions)
    numbers = torch.arange(1.0 * batch * height * width * 4 * 3, device=DEVICE).reshape(batch, height, width, 4, 3)
    packed = launch.pack(sizes, [(numbers, numbers.stride()[:4])], None)
    flat = packed.transpose(3, 4).flatten(2, 3)  # [B, K, tokens, rows]
    assert not flat[:, :, height * width :].any()
    for k, direction in enumerate(directions):
        order = reference.scan_order(direction, height, width, torch.device(DEVICE))
        assert torch.equal(flat[:, k, : height * width], numbers[:, :, :, k].flatten(1, 2)[:, order])
    back = torch.empty_like(numbers)
    launch.unpack(sizes, torch.stack([packed, 2 * packed]), [(back, back.stride()[:4])], None)
    assert torch.equal(back, 3 * numbers)


@pytest.mark.parametrize("wanted", ["x", *(pytest.param(n, marks=long) for n in ("projection", "dt_weight", "A", "D"))])
def test_one_gradient_alone(wanted, ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs(B=1, H=2, W=3, D=2, N=1, R=1, K=2), grad=True)
    whole = gradients(ss2d_scan(**inputs, directions=(0, 1)).square().sum(), inputs)
    alone = {k: t.detach().requires_grad_(k == wanted) for k, t in inputs.items()}
    found = gradients(ss2d_scan(**alone, directions=(0, 1)).square().sum(), alone)
    assert found.keys() == {wanted}
    torch.testing.assert_close(found[wanted], whole[wanted], rtol=0, atol=0)


def test_gradient_of_the_last_state_alone(selective_inputs, relative_error) -> None:
    inputs = placed(selective_inputs(B=1, L=5, D=2, N=1, G=1), grad=True)
    exact = exact_copy(inputs)
    _, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    _, truth = reference.selective_scan(**exact, delta_softplus=True)
    wanted = gradients(truth.square().sum(), exact)
    for name, grad in gradients(state.square().sum(), inputs).items():
        if wanted[name] is None:
            assert grad is None or not grad.any(), name
        else:
            assert relative_error(grad, wanted[name]) < BACKWARD, name


def test_strided_views_equal_copies(ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs(B=2, H=2, W=3, D=3, N=1, R=1, K=1))
    both = torch.randn(2, 2, 3, 6, generator=torch.Generator().manual_seed(7)).to(DEVICE)
    views = {
        "a half of a wider tensor": both[..., 3:],
        "channels first": both[..., :3].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "expanded": both[:1, :, :, :3].expand(2, -1, -1, -1),
        "a part of a wider image": both.repeat(1, 1, 2, 1)[:, :, 1:4, :3],
    }
    for name, view in views.items():
        y = ss2d_scan(**inputs | {"x": view}, directions=[3])
        copied = ss2d_scan(**inputs | {"x": view.contiguous()}, directions=[3])
        torch.testing.assert_close(y, copied, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=long)], ids=["bf16", "fp16"])
def test_half_precision_is_the_float32_scan_rounded_once(dtype, ss2d_inputs) -> None:
    inputs = placed({k: t.to(dtype) for k, t in ss2d_inputs(B=1, H=1, W=3, D=3, N=1, R=1, K=2).items()}, grad=True)
    wide = {k: t.detach().float().requires_grad_() for k, t in inputs.items()}
    y, whole = ss2d_scan(**inputs, directions=(0, 3)), ss2d_scan(**wide, directions=(0, 3))
    assert y.dtype == dtype
    close = {"rtol": torch.finfo(dtype).eps, "atol": 1e-6}
    torch.testing.assert_close(y, whole.to(dtype), **close)
    wanted = gradients(whole.sum(), wide)
    for name, grad in gradients(y.sum(), inputs).items():
        assert grad.dtype == dtype, name
        torch.testing.assert_close(grad, wanted[name].to(dtype), **close, msg=name)


def test_mixed_dtypes(selective_inputs) -> None:
    types = {"u": torch.bfloat16, "B": torch.float16, "z": torch.bfloat16}
    inputs = selective_inputs(B=1, L=4, D=2, N=1, G=1)
    inputs = placed({k: t.to(types.get(k, t.dtype)) for k, t in inputs.items()}, grad=True)
    y = selective_scan(**inputs, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    for name, grad in gradients(y.float().sum(), inputs).items():
        assert grad.dtype == inputs[name].dtype, name


def test_nan_poisons_its_channel_downstream_and_nothing_else(real_tiles, ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs(B=1, H=13, W=5, D=3, N=1, R=0, K=1))
    clean = ss2d_scan(**inputs, directions=[1])
    inputs["x"][0, 2, 1, 2] = float("nan")
    y = ss2d_scan(**inputs, directions=[1])
    order = reference.scan_order(1, 13, 5).tolist()
    poisoned = torch.zeros_like(y, dtype=torch.bool)
    poisoned.view(1, 65, 3)[0, order[order.index(2 * 5 + 1) :], 2] = True
    assert torch.equal(y.isnan(), poisoned)
    torch.testing.assert_close(y[~poisoned], clean[~poisoned], rtol=0, atol=0)


STEPS = {
    "tiny": (1e-30, -1.0), "huge": (1e30, -1.0), "growing": (0.5, 3.0), "no-decay": (1.0, 0.0), "steep": (50.0, -1e4),
    "overflow": (1e30, -3e38),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "rate"), [pytest.param(*v, id=k, marks=() if k == "steep" else long) for k, v in STEPS.items()]
)
def test_finite_inputs_never_give_nan(step, rate) -> None:
    u = torch.randn(1, 70, 2, generator=torch.Generator().manual_seed(4)).to(DEVICE)
    delta, A = torch.full_like(u, step), torch.full((2, 1), rate, device=DEVICE)
    ones = torch.ones(1, 70, 1, 1, device=DEVICE)
    found = selective_scan(u, delta, A, ones, ones)
    exact, _ = reference.selective_scan(*(t.double() for t in (u, delta, A, ones, ones)))
    assert not found.isnan().any()
    expected = exact.float()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=max(1e-37, 1e-6 * expected.abs().max().item()))


@pytest.mark.parametrize("tokens", [pytest.param(100 if INTERPRETED else 8000, marks=long)])
def test_decay_near_one_keeps_its_time_constant(tokens, relative_error) -> None:
    """exp(-1e-5) rounded to float32 is wrong in the third digit of its time constant."""
    u = torch.ones(1, tokens, 1, device=DEVICE)
    delta, A, ones = torch.full_like(u, 1.1e-5), -torch.ones(1, 1, device=DEVICE), torch.ones_like(u).unsqueeze(-1)
    passed = torch.arange(1, tokens + 1, device=DEVICE).reshape(1, -1, 1)
    exact = -torch.expm1(-delta.double() * passed) * delta.double() / -torch.expm1(-delta.double())
    found = selective_scan(u, delta, A, ones, ones)
    assert relative_error(found, exact) <= 1e-4
    # What is lost by each token: 1 - the ratio of the state's decays, from the second differences of y.
    rate = 1 - (found[0, 2:] - found[0, 1:-1]).double().sum() / (found[0, 1:-1] - found[0, :-2]).double().sum()
    wanted = 1 - (exact[0, 2:] - exact[0, 1:-1]).sum() / (exact[0, 1:-1] - exact[0, :-2]).sum()
    assert abs(rate / wanted - 1) < 0.05


def test_bit_equal_over_repeats(ss2d_inputs) -> None:
    large = {"B": 2, "H": 40, "W": 41, "D": 72, "N": 10, "R": 4}
    inputs = placed(ss2d_inputs(**{"B": 1, "H": 2, "W": 5, "N": 1} if INTERPRETED else large, K=2), grad=True)
    first = None
    for _ in range(2 if INTERPRETED else 20):
        y = ss2d_scan(**inputs, directions=(3, 0))
        found = [y.detach(), *gradients(y.square().sum(), inputs).values()]
        first = first or found
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))


@pytest.mark.parametrize("shape", [{"B": 0}, {"L": 0}], ids=["no-samples", "no-tokens"])
def test_empty_sequences(shape, selective_inputs) -> None:
    inputs = placed(selective_inputs(**shape), grad=True)
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    assert y.shape == inputs["u"].shape
    torch.testing.assert_close(state, inputs["initial_state"].detach())
    for name, grad in gradients(y.sum() + state.sum(), inputs).items():
        assert grad is None or grad.shape == inputs[name].shape


def test_empty_batch_of_images(ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs(B=0), grad=True)
    y = ss2d_scan(**inputs)
    assert y.shape == (0, 5, 7, 6)
    assert not any(grad.any() for grad in gradients(y.sum(), inputs).values())


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the assertion ends the process's use of it")
def test_an_index_out_of_range_is_an_error(selective_inputs) -> None:
    inputs = selective_inputs(B=1, L=5)
    inputs["index"] = inputs["index"] + 1
    with pytest.raises(RuntimeError, match=r"index"):
        selective_scan(**inputs)


def test_states_as_the_contract_has_them(real_tiles, ss2d_inputs, selective_inputs) -> None:
    image = placed(ss2d_inputs(B=1, H=13, W=5, D=2, N=1, R=1, K=1))
    _, states = torch.ops.mambair.ss2d_scan(*image.values(), [2], True)
    assert (states.shape, states.dtype) == ((1, 1, 2, 1, 2), torch.float32)
    assert not states[:, :, 0].any()
    assert torch.ops.mambair.ss2d_scan(*image.values(), [2], False)[1].shape == (0,)
    tokens = placed(selective_inputs(B=1, L=3, D=4, N=2, G=2))
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "index")
    *_, states = torch.ops.mambair.selective_scan(*(tokens[name] for name in names), True, True)
    torch.testing.assert_close(states[:, 0], tokens["initial_state"].transpose(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
def test_opcheck_selective_scan(optional, selective_inputs) -> None:
    inputs = placed(selective_inputs(B=1, L=3, D=2, N=1, G=1, optional=optional), grad=True)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "index")
    arguments = (*(inputs.get(name) for name in names), True, True)
    torch.library.opcheck(torch.ops.mambair.selective_scan.default, arguments)


@pytest.mark.slow
def test_opcheck_ss2d_scan(ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs(B=1, H=2, W=2, D=2, N=1, R=1, K=2), grad=True)
    torch.library.opcheck(torch.ops.mambair.ss2d_scan.default, (*inputs.values(), [0, 1], True))
