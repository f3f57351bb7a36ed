"""The native kernels themselves: every instruction set, edges of tiles and vectors, threads, extreme numbers."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mambair.ops import native, operators, reference

FORWARD_BOUND = 2e-7  # relative L2 error against float64
GRADIENT_BOUND = 1e-6
REDUCED_BOUND = 3e-6  # of gradients summed over all tokens: A, D and the biases

if not native.load():
    pytest.skip(f"no native library: {native.why_not()}", allow_module_level=True)

ISAS = native.supported_isas()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    yield native.use_isa(request.param)
    native.use_isa("")


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ss2d_forward_backward(tensors: dict[str, Tensor], directions: list[int], grad: Tensor) -> list[Tensor]:
    """y, the saved states and all gradients, straight from the operators."""
    values = [t.detach() for t in tensors.values()]
    y, states = torch.ops.mambair.ss2d_scan(*values, directions, True)
    return [y, states, *torch.ops.mambair.ss2d_scan_backward(grad, *values, states, directions)]


def ss2d_truth(tensors: dict[str, Tensor], directions: list[int], grad: Tensor) -> list[Tensor]:
    exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    y = reference.ss2d_scan(**exact, directions=directions)
    return [y.detach(), *torch.autograd.grad(y, list(exact.values()), grad.double())]


# H and W around tiles of 32 and chunks of 64 tokens, D around vectors of 4, 8 and 16, N and R of any kind.
SHAPES = {
    "one-token": {"B": 1, "H": 1, "W": 1, "D": 1, "N": 1, "R": 1},
    "one-row": {"B": 1, "H": 1, "W": 65, "D": 5, "N": 2, "R": 4},
    "one-column": {"B": 1, "H": 31, "W": 1, "D": 15, "N": 8, "R": 1},
    "primes": {"B": 2, "H": 7, "W": 13, "D": 17, "N": 10, "R": 4},
    "whole-chunk": {"B": 1, "H": 8, "W": 8, "D": 16, "N": 16, "R": 12},
    "chunk-and-one": {"B": 1, "H": 5, "W": 13, "D": 33, "N": 17, "R": 3},
    "light": {"B": 1, "H": 6, "W": 11, "D": 72, "N": 10, "R": 4},
    "many-states": {"B": 1, "H": 3, "W": 4, "D": 3, "N": 256, "R": 2},
    "high-rank": {"B": 1, "H": 4, "W": 5, "D": 9, "N": 3, "R": 33},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_ss2d_scan_against_float64(shape, isa, ss2d_inputs, relative_error) -> None:
    tensors, directions = ss2d_inputs(**shape), [0, 1, 2, 3]
    grad = torch.randn(tensors["x"].shape, generator=torch.Generator().manual_seed(1))
    y, _, *gradients = ss2d_forward_backward(tensors, directions, grad)
    exact_y, *exact = ss2d_truth(tensors, directions, grad)
    # Without fused multiply-add, or in a sum over very many states, there are more roundings.
    more = 2 if isa == "portable" or shape["N"] > 64 else 1
    assert relative_error(y, exact_y) <= more * FORWARD_BOUND
    for name, found, true in zip(tensors, gradients, exact, strict=True):
        assert relative_error(found, true) <= gradient_bound(name), name


def gradient_bound(name: str) -> float:
    return GRADIENT_BOUND if name in ("x", "projection", "dt_weight") else REDUCED_BOUND


SEQUENCES = {
    "groups": ({"B": 1, "L": 66, "D": 24, "N": 4, "G": 4}, True),
    "lonely-lanes": ({"B": 2, "L": 5, "D": 3, "N": 2, "G": 3}, True),
    "no-softplus": ({"B": 1, "L": 130, "D": 17, "N": 9, "G": 1}, False),
}


@pytest.mark.parametrize("optional", [True, False], ids=["all-arguments", "bare"])
@pytest.mark.parametrize(("shape", "softplus"), SEQUENCES.values(), ids=SEQUENCES.keys())
def test_selective_scan_against_float64(shape, softplus, optional, isa, selective_inputs, relative_error) -> None:
    tensors = selective_inputs(**shape, optional=optional)
    if not softplus:
        tensors["delta"] = tensors["delta"].abs() * 0.2
        if optional:
            tensors["delta_bias"] = tensors["delta_bias"].abs()
    index = tensors.pop("index", None)
    exact = {name: t.double().requires_grad_() for name, t in tensors.items()}
    exact_y, exact_last = reference.selective_scan(**exact, index=index, delta_softplus=softplus)
    g = torch.Generator().manual_seed(2)
    grad = torch.randn(tensors["u"].shape, generator=g)
    grad_last = torch.randn(exact_last.shape, generator=g)
    truth = torch.autograd.grad([exact_y, exact_last], list(exact.values()), [grad.double(), grad_last.double()])

    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    values = [tensors.get(name) for name in names]
    y, last, states = torch.ops.mambair.selective_scan(*values, index, softplus, True)
    found = torch.ops.mambair.selective_scan_backward(grad, grad_last, *values, index, states, softplus)
    assert relative_error(y, exact_y) <= 2 * FORWARD_BOUND  # few outputs: a single rounding weighs more
    assert relative_error(last, exact_last) <= 2 * FORWARD_BOUND
    gradients = dict(zip(names, found, strict=True))
    for name, true in zip(exact, truth, strict=True):
        bound = REDUCED_BOUND if name in ("A", "D", "delta_bias") else GRADIENT_BOUND
        assert relative_error(gradients[name], true) <= bound, name
    for name in set(names) - set(exact):
        assert gradients[name].shape == (0,)


def test_instruction_sets_agree(ss2d_inputs, relative_error) -> None:
    tensors = ss2d_inputs(B=2, H=9, W=10, D=21, N=5, R=3)
    results = []
    for name in ISAS:
        native.use_isa(name)
        results.append(ss2d_forward_backward(tensors, [0, 1, 2, 3], torch.ones_like(tensors["x"])))
    native.use_isa("")
    for other in results[1:]:
        for found, first in zip(other, results[0], strict=True):
            assert relative_error(found, first) <= GRADIENT_BOUND


BATCHES = {
    "one-image": {"B": 1, "H": 24, "W": 25, "D": 72, "N": 10, "R": 4},
    "two-images": {"B": 2, "H": 17, "W": 31, "D": 90, "N": 8, "R": 2},
    "three-images": {"B": 3, "H": 12, "W": 13, "D": 40, "N": 16, "R": 3},
    "whole-chunks": {"B": 1, "H": 16, "W": 24, "D": 72, "N": 10, "R": 4},
}


@pytest.mark.parametrize("shape", BATCHES.values(), ids=BATCHES.keys())
def test_bit_equal_for_any_number_of_threads(shape, isa, ss2d_inputs, threads) -> None:
    tensors, directions = ss2d_inputs(**shape), [0, 2, 1, 3]
    grad = torch.randn(tensors["x"].shape, generator=torch.Generator().manual_seed(3))
    results = []
    for count in (1, 2, 3, 7, 2):
        torch.set_num_threads(count)
        results.append(ss2d_forward_backward(tensors, directions, grad))
    for other in results[1:]:
        for found, first in zip(other, results[0], strict=True):
            assert torch.equal(found, first)


# Opposite directions meet where a pass is at least four chunks of 64 tokens long; the last chunk may be cut short.
MEETING = [(12, 16), (15, 17), (16, 24)]
ORDERS = [[0, 1, 2, 3], [3, 1, 2, 0], [2, 0], [1, 0, 3], [0, 0, 2, 2], [0, 2, 2], [1, 2]]


@pytest.mark.parametrize("size", MEETING, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_directions_that_meet(size, order, ss2d_inputs, relative_error, threads) -> None:
    torch.set_num_threads(3)
    tensors = ss2d_inputs(B=1, H=size[0], W=size[1], D=20, N=2, R=2, K=len(order))
    grad = torch.randn(tensors["x"].shape, generator=torch.Generator().manual_seed(3))
    exact_y, *exact = ss2d_truth(tensors, order, grad)
    y, _, *gradients = ss2d_forward_backward(tensors, order, grad)
    assert relative_error(y, exact_y) <= FORWARD_BOUND
    for name, found, true in zip(tensors, gradients, exact, strict=True):
        assert relative_error(found, true) <= gradient_bound(name), name


def test_bit_equal_over_repeats(ss2d_inputs, threads) -> None:
    torch.set_num_threads(2)
    tensors = ss2d_inputs(B=1, H=20, W=21, D=50, N=10, R=4)
    grad = torch.ones_like(tensors["x"])
    first = ss2d_forward_backward(tensors, [0, 1, 2, 3], grad)
    for _ in range(20):
        again = ss2d_forward_backward(tensors, [0, 1, 2, 3], grad)
        assert all(torch.equal(found, before) for found, before in zip(again, first, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_float32_inside(dtype, isa, ss2d_inputs) -> None:
    tensors = {name: t.to(dtype) for name, t in ss2d_inputs(B=1, H=5, W=7, D=19, N=3, R=2, K=2).items()}
    grad = torch.ones_like(tensors["x"])
    found = ss2d_forward_backward(tensors, [0, 3], grad)
    wide = ss2d_forward_backward({name: t.float() for name, t in tensors.items()}, [0, 3], grad.float())
    for half, single in zip(found, wide, strict=True):
        assert torch.equal(half, single.to(half.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_rounding_to_half_precision(dtype, isa) -> None:
    # Numbers of every size, then ties, the edges of fp16's range and its denormal numbers; bf16's denormal numbers
    # are denormal in float32 too and count as zero.
    bits = torch.arange(0, 2**31, 4099, dtype=torch.int64).to(torch.int32)
    edges = [65504.0, 65519.9, 65520.0, 1e-8, 2**-25, 3 * 2**-25, 6e-8, 1.00390625, 1.01171875, 1.00048828125]
    values = torch.cat([bits.view(torch.float32), torch.tensor(edges)])
    values = values[values.isfinite() & (values.abs() >= torch.finfo(torch.float32).tiny)]
    values = torch.cat([values, -values])
    # A scan of one token with delta = 0 is the skip term alone: y = D * u.
    u, zero, ones = torch.ones(1, 1, len(values), dtype=dtype), torch.zeros(1, 1, len(values)), torch.ones(1, 1, 1, 1)
    y, _ = operators.selective_scan(u, zero, zero.reshape(-1, 1), ones, ones, values)
    expected = values.to(dtype)
    normal = (expected.abs() >= torch.finfo(torch.float32).tiny) | (expected == 0)
    assert torch.equal(y[0, 0][normal], expected[normal])


def run_sequence(u: Tensor, delta: Tensor, A: Tensor, *, softplus: bool = False) -> Tensor:
    """y of a scan with B = C = 1."""
    ones = torch.ones(u.shape[0], u.shape[1], 1, A.shape[1])
    return operators.selective_scan(u, delta, A, ones, ones, delta_softplus=softplus)[0]


STEPS = {
    "tiny": (1e-30, -1.0), "huge": (1e30, -1.0), "growing": (0.5, 3.0), "no-decay": (1.0, 0.0), "steep": (50.0, -1e4),
    "near-one": (1e-5, -1.0), "denormal": (1e-40, -1.0), "overflow": (1e30, -3e38),
}  # fmt: skip


@pytest.mark.parametrize(("step", "rate"), STEPS.values(), ids=STEPS.keys())
def test_finite_inputs_never_give_nan(step, rate, isa) -> None:
    u = torch.randn(1, 70, 18, generator=torch.Generator().manual_seed(4))
    delta, A = torch.full_like(u, step), torch.full((18, 3), rate)
    found = run_sequence(u, delta, A)
    ones = torch.ones(1, 70, 1, 3)
    exact, _ = reference.selective_scan(u.double(), delta.double(), A.double(), ones.double(), ones.double())
    assert not found.isnan().any()
    expected = exact.float()
    small = 1e-37  # denormal numbers count as zero inside
    assert torch.allclose(found, expected, rtol=2e-5, atol=max(small, 1e-6 * expected.abs().max().item()))


def test_softplus_over_its_whole_range(isa) -> None:
    """One token without a past: y is the step."""
    raw = torch.cat([torch.linspace(-80, 30, 4001), torch.tensor([1e4, -200.0, -1e4, -float("inf")])])
    one = torch.ones(len(raw), 1, 1)
    y, _, _ = torch.ops.mambair.selective_scan(
        one, raw.view(-1, 1, 1), torch.zeros(1, 1), one.unsqueeze(-1), one.unsqueeze(-1), None, None, None, None, None,
        True, False,
    )  # fmt: skip
    found, exact = y.view(-1).double(), torch.nn.functional.softplus(raw.double())
    error = (found / exact - 1).abs()[:-3]
    # a few roundings; that of log2(e), and of its product where it is not fused, times the size of the exponent
    rounding = 1.5e-8 + (2**-24 if isa == "portable" else 0.0)
    assert (error - rounding * raw[:-3].abs()).max() < 2e-7
    assert found[-3:].tolist() == [0.0, 0.0, 0.0], "what float32 cannot hold"


@pytest.mark.parametrize("exponent", [-1e-4, -0.17, -0.18, -0.5, -0.86, -0.87, -1.2, -1.73, -1.74, -2.5, -20.0, -80.0])
def test_decays_of_every_size(exponent: float, isa) -> None:
    """Two tokens, the second without input: y is the decay. The kernel computes decays differently by their size."""
    steps = torch.tensor([1.0, 0.9]).view(1, 2, 1)
    rate = torch.tensor([[exponent / 0.9]])
    u, ones = torch.tensor([1.0, 0.0]).view(1, 2, 1), torch.ones(1, 2, 1, 1)
    y, last, _ = torch.ops.mambair.selective_scan(
        u, steps, rate, ones, ones, None, None, None, None, None, False, False
    )
    exact = torch.exp(steps[0, 1, 0].double() * rate.double())
    # the product of step and rate is rounded, which counts as often as it is large
    bound = 2e-7 + 1.2e-7 * abs(exponent)
    assert abs(y[0, 1, 0].double() / exact - 1).item() < bound
    assert last.view(-1)[0] == y[0, 1, 0]


def test_decay_near_one_keeps_its_time_constant(isa, relative_error) -> None:
    # exp(-1e-5) rounded to float32 is wrong in the third digit of its time constant; 8000 tokens show it.
    u = torch.ones(1, 8000, 16)
    delta, A, ones = torch.full_like(u, 1.1e-5), -torch.ones(16, 1), torch.ones(1, 8000, 1, 1)
    exact = -torch.expm1(-delta.double() * torch.arange(1, 8001).reshape(1, -1, 1)) * delta.double()
    exact = exact / -torch.expm1(-delta.double())
    found = operators.selective_scan(u, delta, A, ones, ones)[0]
    assert relative_error(found, exact) <= 1e-4


@pytest.mark.parametrize("where", [0, 31, 32, 63, 64, 69])
def test_nan_poisons_its_channel_downstream_only(where, isa) -> None:
    u = torch.randn(1, 70, 18, generator=torch.Generator().manual_seed(5))
    delta, A = torch.full_like(u, 0.3), -torch.ones(18, 3)
    clean = run_sequence(u, delta, A)
    u[0, where, 4] = float("nan")
    found = run_sequence(u, delta, A)
    expected = torch.zeros_like(found, dtype=torch.bool)
    expected[0, where:, 4] = True
    assert torch.equal(found.isnan(), expected)
    assert torch.equal(found[~expected], clean[~expected])


@pytest.mark.parametrize("payload", [0x7FC00000, 0x7FC00001, 0x7F800001, -1])
def test_nan_in_any_input_survives(payload, isa) -> None:
    nan = torch.tensor([payload], dtype=torch.int64).to(torch.int32).view(torch.float32)[0]
    for place in ("delta", "A"):
        u, delta, A = torch.ones(1, 40, 16), torch.full((1, 40, 16), 0.5), -torch.ones(16, 2)
        (delta if place == "delta" else A)[..., 0, 3 if place == "delta" else 0] = nan
        found = run_sequence(u, delta, A, softplus=place == "delta")
        poisoned = 3 if place == "delta" else 0
        assert found[..., poisoned].isnan().all(), place
        assert not found[..., poisoned + 1].isnan().any(), place


def test_infinite_step_forgets_the_state(isa) -> None:
    u, delta = torch.ones(1, 40, 16), torch.full((1, 40, 16), 0.5)
    delta[0, 20, 2] = float("inf")
    u[0, 20, 2] = 0.0
    exact, _ = reference.selective_scan(u, delta, -torch.ones(16, 1), *[torch.ones(1, 40, 1, 1)] * 2)
    found = run_sequence(u, delta, -torch.ones(16, 1))
    assert torch.equal(found.isnan(), exact.isnan())
    assert torch.allclose(found, exact, equal_nan=True)


def test_caller_keeps_its_floating_point_mode(ss2d_inputs) -> None:
    tensors = ss2d_inputs()
    operators.ss2d_scan(*tensors.values(), [0, 1, 2, 3])
    assert (torch.tensor([1e-40]) * 1.0).item() != 0.0


def guarded(tensor: Tensor) -> tuple[Tensor, mmap.mmap]:
    """A copy whose last number ends at a page that may not be touched."""
    page = mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size()
    pages = (size + page - 1) // page
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + pages * page), ctypes.c_size_t(page), 0) == 0
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=pages * page - size)
    copy = copy.reshape(tensor.shape)
    copy.copy_(tensor)
    return copy, memory


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs mprotect")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_nothing_behind_a_tensor_is_read(dtype, isa, ss2d_inputs) -> None:
    tensors = {name: t.to(dtype) for name, t in ss2d_inputs(B=1, H=5, W=5, D=19, N=3, R=5).items()}
    grad = torch.ones_like(tensors["x"])
    expected = ss2d_forward_backward(tensors, [0, 1, 2, 3], grad)
    placed = {name: guarded(t) for name, t in {**tensors, "grad": grad}.items()}
    grad = placed["grad"][0]
    found = ss2d_forward_backward({name: placed[name][0] for name in tensors}, [0, 1, 2, 3], grad)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_views_are_read_in_place(isa) -> None:
    # The two halves of a projection, a channels-first tensor, an expanded and an unaligned one.
    g = torch.Generator().manual_seed(6)
    u = torch.randn(2, 9, 2 * 10, generator=g)[..., 10:]
    delta = torch.rand(2, 10, 9, generator=g).transpose(1, 2)
    matrices = torch.randn(2, 9, 1, 7, generator=g)
    B, C = matrices[..., :3], matrices[..., 4:7]
    z = torch.randn(1, 1, 10, generator=g).expand(2, 9, 10)
    A = -torch.rand(10, 3, generator=g)
    views = [u, delta, A, B, C, None, z, None, None, None, True, True]
    copies = [t.contiguous() if isinstance(t, Tensor) else t for t in views]
    for found, expected in zip(
        torch.ops.mambair.selective_scan(*views), torch.ops.mambair.selective_scan(*copies), strict=True
    ):
        assert torch.equal(found, expected)


def test_index_must_be_a_permutation(selective_inputs) -> None:
    tensors = selective_inputs(B=1, L=5, optional=True)
    for wrong in ([0, 1, 2, 3, 5], [0, 1, 2, 3, -1], [0, 1, 2, 3, 3]):
        tensors["index"] = torch.tensor([wrong])
        with pytest.raises(RuntimeError, match="index must hold every number from 0 to L - 1 once"):
            operators.selective_scan(**tensors)


def test_from_python_threads(ss2d_inputs) -> None:
    tensors = ss2d_inputs(B=1, H=9, W=9, D=20)
    values = [*tensors.values(), [0, 1, 2, 3]]
    expected = operators.ss2d_scan(*values)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: operators.ss2d_scan(*values), range(12)))
    assert all(torch.equal(found, expected) for found in results)


class ScannedImages(torch.utils.data.Dataset):
    """A data set that scans in its worker."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = values

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return operators.ss2d_scan(*self.values, [0, 1, 2, 3])[0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_in_forked_workers(ss2d_inputs) -> None:
    values = list(ss2d_inputs(B=1, H=16, W=16, D=20, N=16).values())
    expected = operators.ss2d_scan(*values, [0, 1, 2, 3])[0]
    loader = DataLoader(ScannedImages(values), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(found, expected) for found in loader)
