"""Backends to run the public scans on, random inputs for them, and the one measure of error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mambair.ops import native

Tensors = dict[str, Tensor]


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each backend that runs float32 scans on a CPU."""
    if request.param == "native" and not native.load():
        pytest.skip(f"no native library: {native.why_not()}")
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", request.param)
    return request.param


@pytest.fixture
def selective_inputs() -> Callable[..., Tensors]:
    """Random arguments of selective_scan by name, all optional ones included unless told."""

    def make(
        B: int = 2, L: int = 21, D: int = 6, N: int = 3, G: int = 2, *, optional: bool = True,
        dtype: torch.dtype = torch.float32, grad: bool = False,
    ) -> Tensors:  # fmt: skip
        g = torch.Generator().manual_seed(B + 10 * L + 100 * D + 1000 * N)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        tensors = {
            "u": random(B, L, D),
            "delta": random(B, L, D) - 1.0,
            "A": -torch.exp(random(D, N)),
            "B": random(B, L, G, N),
            "C": random(B, L, G, N),
        }
        if optional:
            more = {"D": (D,), "z": (B, L, D), "delta_bias": (D,), "initial_state": (B, D, N)}
            tensors |= {name: random(*shape) for name, shape in more.items()}
        tensors = {name: t.to(dtype).requires_grad_(grad) for name, t in tensors.items()}
        if optional:
            order = [torch.randperm(L, generator=g) for _ in range(B)]
            tensors["index"] = torch.stack(order) if B else torch.zeros(0, L, dtype=torch.int64)
        return tensors

    return make


@pytest.fixture
def ss2d_inputs() -> Callable[..., Tensors]:
    """Random arguments of ss2d_scan by name."""

    def make(
        B: int = 2, H: int = 5, W: int = 7, D: int = 6, N: int = 3, R: int = 2, K: int = 4, *,
        dtype: torch.dtype = torch.float32, grad: bool = False,
    ) -> Tensors:  # fmt: skip
        g = torch.Generator().manual_seed(B + 10 * H + 100 * W + 1000 * D)
        shapes = {
            "x": (B, H, W, D), "projection": (B, H, W, K, R + 2 * N), "dt_weight": (K, D, R), "dt_bias": (K, D),
            "A": (K, D, N), "D": (K, D),
        }  # fmt: skip
        tensors = {name: torch.randn(*shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
        tensors["A"] = -torch.exp(tensors["A"])
        tensors["dt_bias"] = tensors["dt_bias"] - 2.0
        return {name: t.to(dtype).requires_grad_(grad) for name, t in tensors.items()}

    return make


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """Relative L2 error of a tensor against the truth; 0 for two empty or two zero tensors."""

    def measure(found: Tensor, truth: Tensor) -> float:
        assert found.shape == truth.shape
        difference = (found.double() - truth.double()).norm().item()
        return difference / max(truth.double().norm().item(), 1e-30) if difference else 0.0

    return measure
