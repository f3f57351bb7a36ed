"""What needs a real GPU: long sequences, autocast, compilation, a network that trains, the choice by measurement.

Skipped elsewhere. ``test_triton_kernels.py`` holds the comparison with the definition, for GPU and interpreter alike.
"""

from __future__ import annotations

import os

import pytest
import torch

from mambair.ops import backends, mamba_ssm, selective_scan, ss2d_scan

if not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs a CUDA device", allow_module_level=True)

REDUCED = {"A", "D", "dt_bias", "delta_bias", "dt_weight"}  # sums over all tokens


@pytest.fixture(autouse=True)
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "triton")
    torch.compiler.reset()


def placed(inputs, dtype=None, activations=("x", "projection", "u", "delta", "B", "C", "z")):
    """Leaves on the GPU, activations in ``dtype``."""
    cast = {k: t.to(dtype) if dtype is not None and k in activations else t for k, t in inputs.items()}
    return {k: t.detach().cuda().requires_grad_(t.is_floating_point()) for k, t in cast.items()}


def everything(scan, inputs, **options):
    """y and all gradients of the sum of its squares, by name."""
    y = scan(**inputs, **options)
    leaves = {k: t for k, t in inputs.items() if t.requires_grad}
    grads = torch.autograd.grad(y.float().square().sum(), list(leaves.values()))
    return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}


def torch_path(monkeypatch, scan, inputs, **options):
    with monkeypatch.context() as patch:
        patch.setenv("MAMBAIR_SCAN_BACKEND", "torch")
        return everything(scan, inputs, **options)


CASES = {
    "light": {"B": 1, "H": 64, "W": 64, "D": 72, "N": 10, "R": 4},
    "light-training": {"B": 16, "H": 48, "W": 48, "D": 72, "N": 10, "R": 4},
    "video": {"B": 1, "H": 180, "W": 320, "D": 72, "N": 10, "R": 4},
    "classic": {"B": 1, "H": 64, "W": 64, "D": 360, "N": 16, "R": 12},
    "odd": {"B": 3, "H": 37, "W": 53, "D": 45, "N": 7, "R": 5},
    "narrow": {"B": 2, "H": 1000, "W": 3, "D": 33, "N": 5, "R": 1},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("shape", CASES.values(), ids=CASES.keys())
def test_real_sizes_equal_the_torch_path(shape, dtype, monkeypatch, ss2d_inputs, relative_error) -> None:
    inputs = placed(ss2d_inputs(**shape), dtype)
    found, wanted = everything(ss2d_scan, inputs), torch_path(monkeypatch, ss2d_scan, inputs)
    for name, t in found.items():
        assert t.dtype == wanted[name].dtype
        limit = 1e-5 if t.dtype == torch.float32 else 2 * torch.finfo(t.dtype).eps
        assert relative_error(t, wanted[name]) < limit, name


@pytest.mark.parametrize("length", [4099, 2**17 + 1, 2**20])
def test_long_sequences(length, monkeypatch, selective_inputs, relative_error) -> None:
    inputs = placed(selective_inputs(B=1, L=length, D=40, N=4, G=2))
    options = {"delta_softplus": True}
    found = everything(selective_scan, inputs, **options)
    for name, t in torch_path(monkeypatch, selective_scan, inputs, **options).items():
        assert relative_error(found[name], t) < (1e-4 if name in REDUCED else 1e-5), name


def test_offsets_beyond_two_to_the_31(relative_error) -> None:
    """Channels in a tensor so large that its offsets need 64 bits: the last image equals the same image alone."""
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GB of free memory")
    g = torch.Generator(device="cuda").manual_seed(0)
    u = torch.randn(3, 2**20, 720, generator=g, device="cuda", dtype=torch.bfloat16)
    matrices = torch.randn(3, 2**20, 1, 2, generator=g, device="cuda")
    delta, A = torch.rand(3, 2**20, 1, device="cuda").expand_as(u), -torch.rand(720, 2, device="cuda")
    with torch.no_grad():
        whole = selective_scan(u, delta, A, matrices, matrices)
        alone = selective_scan(u[2:], delta[2:], A, matrices[2:], matrices[2:])
    assert relative_error(whole[2], alone[0]) < torch.finfo(torch.bfloat16).eps


def test_autocast_changes_nothing(ss2d_inputs) -> None:
    inputs = placed(ss2d_inputs())
    plain = everything(ss2d_scan, inputs)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        cast = everything(ss2d_scan, inputs)
    for name, t in plain.items():
        torch.testing.assert_close(cast[name], t, rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiled_programs(dynamic, ss2d_inputs) -> None:
    compiled = torch.compile(ss2d_scan, fullgraph=True, dynamic=dynamic)
    for height, width in ((5, 7), (9, 4)) if dynamic else ((5, 7),):
        inputs = placed(ss2d_inputs(H=height, W=width))
        plain = everything(ss2d_scan, inputs)
        for name, t in everything(compiled, inputs).items():
            torch.testing.assert_close(t, plain[name], rtol=1e-6, atol=1e-6, msg=name)


def test_captured_in_a_graph(ss2d_inputs) -> None:
    inputs = {k: t.detach() for k, t in placed(ss2d_inputs(B=1, H=32, W=32, D=72, N=10, R=4)).items()}
    expected = ss2d_scan(**inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = ss2d_scan(**inputs)
    y.zero_()
    graph.replay()
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_memory_beyond_outputs_is_bounded(ss2d_inputs) -> None:
    """Inference of a large image holds a float32 image for each direction, the projections once more, no states."""
    inputs = {k: t.detach() for k, t in placed(ss2d_inputs(B=1, H=256, W=256, D=72, N=10, R=4)).items()}
    ss2d_scan(**inputs)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = ss2d_scan(**inputs)
    image, projections = y.numel() * 4, inputs["projection"].numel() * 4
    assert torch.cuda.max_memory_allocated() - before < 5 * image + projections + 2**24


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16-autocast"])
def test_a_small_network_trains_as_on_the_torch_path(dtype, monkeypatch) -> None:
    from mambair.archs.mambair_arch import MambaIR

    def losses(backend: str) -> list[float]:
        monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", backend)
        torch.manual_seed(0)
        net = MambaIR(embed_dim=12, d_state=4, depths=(2,), drop_path_rate=0.0).cuda()
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        clean = torch.rand(4, 3, 16, 16, device="cuda")
        noisy = clean + 0.1 * torch.randn_like(clean)
        found = []
        for _ in range(30):
            with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                loss = (net(noisy) - clean).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        return found

    triton, plain = losses("triton"), losses("torch")
    assert triton[-1] < 0.9 * triton[0]
    assert triton == pytest.approx(plain, rel=0.05)


def test_mamba_ssm_is_taken_only_where_it_was_measured_faster(monkeypatch, ss2d_inputs) -> None:
    if mamba_ssm.why_not() is not None:
        pytest.skip(mamba_ssm.why_not())
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    inputs = placed(ss2d_inputs(B=1, H=64, W=64, D=72, N=10, R=4))
    found = everything(ss2d_scan, inputs)
    for name in ("triton", "mamba_ssm"):
        assert backends.explain("cuda")[1][name] is None
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "triton")
    for name, t in everything(ss2d_scan, inputs).items():
        torch.testing.assert_close(found[name], t, rtol=1e-3, atol=1e-3, msg=name)
