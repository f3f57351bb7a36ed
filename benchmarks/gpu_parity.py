"""The GPU's scan against the torch path on the same card: outputs and every gradient, five shapes, three data types.

    python benchmarks/gpu_parity.py --output parity.jsonl
    python benchmarks/gpu_parity.py --output parity.jsonl --rehearse     # the CPU's kernel in its place, small shapes

A line of JSON for each shape and type is written as soon as it is known. Exit code 1: a difference beyond the limit, a
value that is not finite, or two runs that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# B, H, W, D, N, R
SHAPES = {
    "light": (1, 64, 64, 72, 10, 4),
    "light, batch": (4, 48, 48, 72, 10, 4),
    "classic": (1, 64, 64, 360, 16, 12),
    "odd": (3, 37, 53, 45, 7, 5),
    "narrow": (2, 1000, 3, 33, 5, 1),
}
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ROUNDED = ("x", "projection")  # what autocast hands over in its own type
FP32_LIMIT = 1e-5  # relative L2 distance; the CPU's kernel keeps the same
SUMS_LIMIT = 1e-4  # of gradients that are sums over all tokens, in another order


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Arguments of ss2d_scan by name; ``x`` [B, H, W, D]. Leaves that want gradients."""
    import torch

    B, H, W, D, N, R = shape
    g = torch.Generator().manual_seed(0)
    sizes = {
        "x": (B, H, W, D), "projection": (B, H, W, 4, R + 2 * N), "dt_weight": (4, D, R), "dt_bias": (4, D),
        "A": (4, D, N), "D": (4, D),
    }  # fmt: skip
    made = {name: torch.randn(*size, generator=g) for name, size in sizes.items()}
    made["A"], made["dt_bias"] = -torch.exp(made["A"]), made["dt_bias"] - 2.0
    cast = {name: t.to(dtype) if name in ROUNDED else t for name, t in made.items()}
    return {name: t.to(device).requires_grad_() for name, t in cast.items()}


def everything(backend: str, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The output, and the gradients of its sum weighted by fixed random numbers, by name."""
    import torch

    from mambair.ops import ss2d_scan

    os.environ["MAMBAIR_SCAN_BACKEND"] = backend
    y = ss2d_scan(**leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    gradients = torch.autograd.grad(y, list(leaves.values()), weights)
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def compare(shape: tuple[int, ...], dtype: str, device: str, backend: str) -> dict[str, object]:
    """Distances of ours from the torch path by name, the seconds of the first run, and the verdict."""
    import torch

    leaves = inputs(shape, getattr(torch, DTYPES[dtype]), device)
    started = time.perf_counter()
    found = everything(backend, leaves)
    first = time.perf_counter() - started
    again, wanted = everything(backend, leaves), everything("torch", leaves)
    repeats = all(torch.equal(found[name], again[name]) for name in found)
    distances, limits = {}, {}
    for name, t in found.items():
        far = (t.double() - wanted[name].double()).norm() / wanted[name].double().norm()
        distances[name] = float(f"{far.item():.2e}") if torch.isfinite(far) else None
        exact = SUMS_LIMIT if name in ("A", "D", "dt_bias", "dt_weight") else FP32_LIMIT
        limits[name] = exact if t.dtype == torch.float32 else 2 * torch.finfo(t.dtype).eps
    passed = repeats and all(far is not None and far < limits[name] for name, far in distances.items())
    return {"passed": passed, "repeats": repeats, "first_seconds": round(first, 2), "distances": distances}


def main() -> int:
    """Returns 0, or 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file of JSON lines")
    parser.add_argument("--backend", default="triton", help="the backend to compare (default: triton)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, its native backend, small shapes")
    options = parser.parse_args()
    device, backend = ("cpu", "native") if options.rehearse else ("cuda", options.backend)
    failed = 0
    with options.output.open("w", encoding="utf-8") as output:
        for name, shape in SHAPES.items():
            sizes = (shape[0], max(shape[1] // 8, 1), max(shape[2] // 8, 1), *shape[3:]) if options.rehearse else shape
            for dtype in DTYPES:
                try:
                    result = compare(sizes, dtype, device, backend)
                except Exception as error:  # of the compiler or the driver: the other cases still teach something
                    result = {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
                failed += not result["passed"]
                row = {"shape": name, "sizes": sizes, "dtype": dtype, "backend": backend, **result}
                line = json.dumps(row, allow_nan=False)
                print(line, file=output, flush=True)
                print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
