"""Who runs a scan and why the others do not: choice, forcing, warnings, mamba_ssm's place, what an import brings in."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as F

from mambair.ops import __main__ as command
from mambair.ops import autotune, backends, mamba_ssm, native, selective_scan, ss2d_scan, triton_scan
from mambair.ops.backends import Request
from mambair.system.errors import RequestError


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND", raising=False)
    caches = (backends._search, backends._warn_without_native, mamba_ssm._kernel)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: False)
    monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler was found; install g++")


def test_the_order_of_the_table_ends_with_torch() -> None:
    assert [b.name for b in backends.BACKENDS] == ["native", "triton", "mamba_ssm", "torch"]


def test_an_unknown_name_lists_the_names(monkeypatch, ss2d_inputs) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "cuda")
    with pytest.raises(RequestError) as caught:
        ss2d_scan(**ss2d_inputs())
    assert str(caught.value) == (
        "MAMBAIR_SCAN_BACKEND=cuda: there is no such backend; there are native, triton, mamba_ssm, torch"
    )


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("mamba_ssm", torch.float32, "it runs on CUDA devices, not on cpu"),
        ("native", torch.float64, "it computes in float32, and an input is float64"),
    ],
)
def test_a_forced_backend_that_cannot_run_raises(name, dtype, reason, monkeypatch, selective_inputs) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", name)
    with pytest.raises(RequestError) as caught:
        selective_scan(**selective_inputs(dtype=dtype))
    assert str(caught.value) == f"MAMBAIR_SCAN_BACKEND={name}: this backend cannot run the scan: {reason}"


def test_a_forced_native_that_is_missing_says_why(without_native, monkeypatch, selective_inputs) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "native")
    with pytest.raises(RequestError, match=r"cannot run the scan: no C\+\+ compiler was found; install g\+\+"):
        selective_scan(**selective_inputs())


def test_one_warning_when_native_is_missing(without_native, monkeypatch, selective_inputs, ss2d_inputs) -> None:
    monkeypatch.delenv("MAMBAIR_NATIVE", raising=False)
    with pytest.warns(
        UserWarning, match=r"slower pure-torch path, .* no C\+\+ compiler was found; install g\+\+"
    ) as got:
        selective_scan(**selective_inputs())
        selective_scan(**selective_inputs(), return_last_state=True)
        ss2d_scan(**ss2d_inputs())
    assert len(got) == 1
    assert got[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_warning_where_the_torch_path_is_meant(dtype, without_native, monkeypatch, selective_inputs) -> None:
    if dtype == torch.float32:
        monkeypatch.setenv("MAMBAIR_NATIVE", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selective_scan(**selective_inputs(dtype=dtype))


REQUESTS = {
    "cuda": ("native", Request("cuda"), "it runs on the CPU, not on cuda"),
    "states": ("native", Request("cpu", many_states=True), "it holds up to 256 numbers of state"),
    "func": ("native", Request("cpu", transformed=True), "torch.func"),
    "triton-cpu": ("triton", Request("cpu"), "it runs on CUDA devices, not on cpu"),
    "triton-other": ("triton", Request("mps"), "it runs on CUDA devices, not on mps"),
    "triton-double": ("triton", Request("cuda", double=True), "float64"),
    "triton-states": ("triton", Request("cuda", many_states=True), "up to 256 numbers of state"),
    "triton-func": ("triton", Request("cuda", transformed=True), "torch.func"),
    "double": ("mamba_ssm", Request("cuda", double=True), "float64"),
    "compile": ("mamba_ssm", Request("cuda", compiling=True), "cannot trace"),
    "state": ("mamba_ssm", Request("cuda", carries_state=True), "no gradient of the last one"),
}


@pytest.mark.parametrize(("name", "request_", "reason"), REQUESTS.values(), ids=REQUESTS.keys())
def test_reasons_to_decline(name, request_, reason) -> None:
    (backend,) = (b for b in backends.BACKENDS if b.name == name)
    assert reason in (backend.declines(request_) or "")


TRITON_REASONS = {
    "not-installed": ({"find_spec": None}, "Triton is not installed; torch's CUDA builds bring it along"),
    "interpreter": ({"TRITON_INTERPRET": "1"}, "Triton's interpreter runs on the CPU only"),
    "no-device": ({"is_available": False}, "torch finds no CUDA device"),
    "old": ({"capability": (7, 5)}, "Triton needs compute capability 8.0; this GPU has 7.5"),
    "new": ({"capability": (9, 0)}, None),
    "amd": ({"hip": "6.4"}, "never tried on GPUs of AMD"),
}


@pytest.mark.parametrize(("machine", "reason"), TRITON_REASONS.values(), ids=TRITON_REASONS.keys())
def test_why_triton_cannot_run(machine, reason, monkeypatch) -> None:
    monkeypatch.setattr(triton_scan, "find_spec", lambda name: machine.get("find_spec", object()))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.get("is_available", True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: machine.get("capability", (9, 0)))
    monkeypatch.setattr(torch.version, "hip", machine.get("hip"))
    monkeypatch.setenv("TRITON_INTERPRET", machine.get("TRITON_INTERPRET", "0"))
    found = triton_scan.why_not("cuda")
    assert found is None if reason is None else reason in (found or "")


def test_triton_on_a_cpu_needs_its_name_and_its_interpreter(monkeypatch) -> None:
    monkeypatch.setattr(triton_scan, "find_spec", lambda name: object())
    monkeypatch.setattr(triton_scan, "_taken", lambda key: None)
    for interpret, forced, runs in (("1", True, True), ("1", False, False), ("0", True, False)):
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
        assert (triton_scan.why_not("cpu", forced=forced) is None) == runs


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Times that the trial will find, and a GPU that needs none."""
    times = {"triton": 1.0, "mamba_ssm": 1.0}
    monkeypatch.setattr(autotune, "_results", {})
    monkeypatch.setattr(autotune, "_time", lambda name, run, wanting: times[name])
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return times


@pytest.mark.parametrize(("theirs", "winner"), [(2.0, "triton"), (0.95, "triton"), (0.5, "mamba_ssm")])
def test_the_trial_wants_a_clear_lead(theirs, winner, measured) -> None:
    measured["mamba_ssm"] = theirs
    assert autotune.faster(("triton", "mamba_ssm"), lambda name: torch.ones(1), [torch.ones(3)]) == winner


def test_the_trial_is_held_once_for_a_shape(measured, monkeypatch) -> None:
    names, x = ("triton", "mamba_ssm"), torch.ones(3)
    assert autotune.faster(names, lambda name: x, [x]) == "triton"
    measured["mamba_ssm"] = 0.1
    assert autotune.faster(names, lambda name: x, [x]) == "triton"
    others = {"shape": [torch.ones(4)], "dtype": [x.half()], "gradient": [torch.ones(3, requires_grad=True)]}
    for other in others.values():
        assert autotune.faster(names, lambda name: x, other) == "mamba_ssm"
    assert autotune.faster(names, lambda name: x, [x], (1,)) == "mamba_ssm"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert autotune.faster(names, lambda name: x, [torch.ones(5)]) == "triton"
    assert len(autotune._results) == 5  # and nothing was learned while capturing


def test_mamba_ssm_takes_the_place_of_triton_only_where_faster(measured, monkeypatch, ss2d_inputs) -> None:
    tensors = list(ss2d_inputs().values())
    monkeypatch.setattr(backends, "_choose", lambda *arguments: "triton")
    monkeypatch.setattr(backends, "_mamba_ssm_declines", lambda request: "it is not installed")
    measured["mamba_ssm"] = 0.1
    choose = functools.partial(backends.choose, tensors, states=3, run=lambda backend: tensors[0])
    assert choose().name == "triton"
    monkeypatch.setattr(backends, "_mamba_ssm_declines", lambda request: None)
    assert choose().name == "mamba_ssm"
    assert backends.choose(tensors, states=3).name == "triton"
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "triton")
    assert choose().name == "triton"


def test_more_states_than_native_holds_take_the_torch_path(selective_inputs) -> None:
    y = selective_scan(**selective_inputs(B=1, L=2, D=1, N=257, G=1))
    assert y.isfinite().all()


@pytest.fixture
def fake_mamba_ssm(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for mamba_ssm's CUDA function: its signature and rules, computed by ours on the CPU."""
    from mambair.ops import selective_scan_fn

    calls = []

    def kernel(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
        calls.append(u.dtype)
        assert {t.dtype for t in (u, delta, B, C, *(() if z is None else (z,)))} == {u.dtype}
        assert {t.dtype for t in (A, D, delta_bias) if t is not None} == {torch.float32}
        assert A.dim() == 2 and B.dim() == 4
        return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)

    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn, interface.selective_scan_cuda = kernel, object()
    operations = types.ModuleType("mamba_ssm.ops")
    operations.selective_scan_interface = interface
    for name, module in (("mamba_ssm", types.ModuleType("mamba_ssm")), ("mamba_ssm.ops", operations),
                         ("mamba_ssm.ops.selective_scan_interface", interface)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_mamba_ssm_scans_equal_ours(fake_mamba_ssm, selective_inputs, ss2d_inputs) -> None:
    image = ss2d_inputs(grad=True)
    for directions in ((0, 1, 2, 3), (2, 2, 1, 0)):
        found = mamba_ssm.ss2d_scan(*image.values(), list(directions))
        torch.testing.assert_close(found, ss2d_scan(**image, directions=directions), rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert all(t.grad is not None for t in image.values())
    tokens = selective_inputs()
    del tokens["initial_state"]
    for inputs in (tokens, {k: t for k, t in tokens.items() if k != "index"}):
        found, _ = mamba_ssm.selective_scan(**inputs, delta_softplus=True)
        torch.testing.assert_close(found, selective_scan(**inputs, delta_softplus=True), rtol=1e-5, atol=1e-5)
    mixed = tokens | {"u": tokens["u"].bfloat16()}
    assert mamba_ssm.selective_scan(**mixed)[0].dtype == torch.bfloat16
    assert set(fake_mamba_ssm) == {torch.float32}


def test_mamba_ssm_is_chosen_on_cuda_when_it_has_its_kernel(fake_mamba_ssm, monkeypatch) -> None:
    assert backends.explain("cuda")[0] == "mamba_ssm"
    mamba_ssm._kernel.cache_clear()
    backends._search.cache_clear()
    sys.modules["mamba_ssm.ops.selective_scan_interface"].selective_scan_cuda = None
    chosen, reasons = backends.explain("cuda")
    assert chosen == "torch"
    assert "MAMBA_KEEP_CUDA_BUILD" in (reasons["mamba_ssm"] or "")


def test_the_command_prints_choice_and_reasons(monkeypatch, capsys) -> None:
    assert command.main([]) == 0
    printed = capsys.readouterr().out
    assert "declined: it runs on the CPU, not on cuda" in printed
    assert printed.count("chosen") == 2
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "nonsense")
    assert command.main([]) == 2
    assert "there are native, triton, mamba_ssm, torch" in capsys.readouterr().out


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_import_loads_nothing_native_and_nothing_heavy(repository) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(repository)!r})
import torch
before = set(sys.modules)
import mambair.ops
new = set(sys.modules) - before
heavy = ("torch._dynamo", "torch._inductor", "triton", "mamba_ssm", "cv2", "timm", "torchvision", "basicsr", "pydantic")
print([m for m in new if m.startswith(heavy)], "mambair.ops.native" in new)
try:
    torch.ops.mambair.ss2d_scan(*[torch.zeros(1, 1, 1, 1)] * 6, [0], False)
except Exception as error:
    print(type(error).__name__)
"""
    assert run_python(code).split("\n")[:2] == ["[] False", "NotImplementedError"]


def test_softplus_of_the_torch_path_is_accurate_for_small_steps(monkeypatch) -> None:
    """log(1 + exp(x)) would lose the step's digits at x = -10."""
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "torch")
    delta = torch.full((1, 1, 1), -10.0)
    one = torch.ones(1, 1, 1)
    y = selective_scan(one, delta, torch.zeros(1, 1), one.unsqueeze(-1), one.unsqueeze(-1), delta_softplus=True)
    torch.testing.assert_close(y.double(), F.softplus(delta.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("forced", ["", "torch"])
def test_meta_tensors_need_no_backend(forced: str, monkeypatch, ss2d_inputs, selective_inputs, without_native) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", forced)
    two, one = ss2d_inputs(), selective_inputs()
    y = ss2d_scan(**{name: value.to("meta") for name, value in two.items()})
    assert (y.device.type, y.shape) == ("meta", two["x"].shape)
    y = selective_scan(**{name: value.to("meta") for name, value in one.items()})
    assert (y.device.type, y.shape) == ("meta", one["u"].shape)
