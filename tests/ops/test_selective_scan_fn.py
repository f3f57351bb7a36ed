"""Code written for mamba_ssm: the same signature and layout, stored exact cases, ours against the other.

``MODES`` names who is compared with the definition, after VMamba's test of the same name; what cannot run is skipped.
"""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from mambair.ops import mamba_ssm, native, reference, selective_scan_fn

CASES = [f"selective_scan_{i}" for i in range(10)]


def reference_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """mamba_ssm's signature over the definition."""
    last = [t.transpose(1, 2) if t is not None else None for t in (u, delta, z)]
    B, C = (t.permute(0, 3, 1, 2) if t.dim() == 4 else t.transpose(1, 2).unsqueeze(2) for t in (B, C))
    y, state = reference.selective_scan(
        last[0], last[1], A, B, C, D, last[2], delta_bias, delta_softplus=delta_softplus
    )
    return (y.transpose(1, 2), state) if return_last_state else y.transpose(1, 2)


def test_the_signature_is_mamba_ssms() -> None:
    names = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "delta_softplus", "return_last_state"]
    parameters = inspect.signature(selective_scan_fn).parameters
    assert list(parameters) == names
    defaults = [parameters[n].default for n in names[5:]]
    assert defaults == [None, None, None, False, False]


@pytest.mark.parametrize("case", CASES)
def test_stored_exact_cases(case, backend, golden) -> None:
    """Outputs and gradients that were computed in float64 with the official recurrence."""
    folder = golden / "mambair" / "cases"
    about = json.loads((folder / f"{case}.json").read_text())
    with np.load(folder / f"{case}.npz") as arrays:
        stored = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    inputs = {name: stored[name].clone().requires_grad_() for name in about["inputs"]}
    y, state = selective_scan_fn(**inputs, **about["kwargs"], return_last_state=True)
    torch.testing.assert_close(y, stored["output"], rtol=0, atol=2e-5)
    torch.testing.assert_close(state, stored["last_state"], rtol=0, atol=2e-5)
    y.backward(stored["grad_output"])
    for name, t in inputs.items():
        truth = stored[f"grad_{name}"]
        torch.testing.assert_close(t.grad, truth, rtol=0, atol=2e-5 * truth.abs().max().item(), msg=name)


def mode_native():
    return (selective_scan_fn, "native", "cpu") if native.load() else native.why_not()


def mode_mamba_ssm():
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    kernel, reason = mamba_ssm._kernel()
    return (kernel, "torch", "cuda") if kernel else reason


# mode: (what is tested, the backend forced meanwhile, device), or why it cannot run here
MODES = {
    "ours-native": mode_native,
    "ours-torch": lambda: (selective_scan_fn, "torch", "cpu"),
    "ours-torch-cuda": lambda: (selective_scan_fn, "torch", "cuda") if torch.cuda.is_available() else "no CUDA device",
    "mamba_ssm": mode_mamba_ssm,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("groups", [1, 2, "shared"])
@pytest.mark.parametrize("has_z", [False, True], ids=["no-z", "z"])
@pytest.mark.parametrize("has_bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
@pytest.mark.parametrize("length", [65])
def test_selective_scan(mode, groups, has_z, has_bias, softplus, length, monkeypatch) -> None:
    setup = MODES[mode]()
    if isinstance(setup, str):
        pytest.skip(setup)
    scan, backend, device = setup
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", backend)
    torch.manual_seed(0)
    batch, channels, states = 2, 4, 8
    matrices = (batch, states, length) if groups == "shared" else (batch, groups, states, length)
    inputs = {
        "u": torch.randn(batch, channels, length),
        "delta": 0.5 * torch.rand(batch, channels, length),
        "A": -0.5 * torch.rand(channels, states),
        "B": torch.randn(matrices),
        "C": torch.randn(matrices),
        "D": torch.randn(channels),
        "z": torch.randn(batch, channels, length) if has_z else None,
        "delta_bias": 0.5 * torch.rand(channels) if has_bias else None,
    }
    inputs = {k: t.to(device).requires_grad_() for k, t in inputs.items() if t is not None}
    exact = {k: t.detach().double().requires_grad_() for k, t in inputs.items()}
    y, state = scan(**inputs, delta_softplus=softplus, return_last_state=True)
    truth, last = reference_fn(**exact, delta_softplus=softplus, return_last_state=True)
    torch.testing.assert_close(y.double(), truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.double(), last, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    truth.backward(upstream.double())
    for name, t in inputs.items():
        torch.testing.assert_close(t.grad.double(), exact[name].grad, rtol=1e-4, atol=1e-4, msg=name)


def test_constant_matrices(backend) -> None:
    """B and C of shape [D, N]: the same for all tokens, another for every channel."""
    torch.manual_seed(0)
    u, delta = torch.randn(2, 3, 9), torch.rand(2, 3, 9)
    A, B, C = -torch.rand(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    spread = [t[None, :, :, None].expand(2, 3, 4, 9).contiguous() for t in (B, C)]
    torch.testing.assert_close(selective_scan_fn(u, delta, A, B, C), reference_fn(u, delta, A, *spread))


def test_errors_name_argument_rule_and_finding() -> None:
    u, A, B = torch.zeros(2, 3, 9), torch.zeros(3, 4), torch.zeros(2, 4, 9)
    with pytest.raises(ValueError, match=r"u must have the 3 dimensions \[B, D, L\]; found \[3, 9\]"):
        selective_scan_fn(u[0], u, A, B, B)
    with pytest.raises(ValueError, match=r"C must be \[D, N\], \[B, N, L\] or \[B, G, N, L\]; found \[4, 9\]"):
        selective_scan_fn(u, u, A, B, B[0])
    with pytest.raises(ValueError, match=r"A must be float32, .*; found torch.complex64"):
        selective_scan_fn(u, u, A.to(torch.complex64), B, B)
