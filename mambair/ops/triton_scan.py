"""Whether the Triton kernels can run here, and adding them to the operators: only when a scan asks for them.

Triton comes with torch's CUDA builds, and compiles each kernel at its first use (seconds, then kept on disk).
``TRITON_INTERPRET=1`` with ``MAMBAIR_SCAN_BACKEND=triton`` runs them slowly on a CPU, to test and debug them.
"""

from __future__ import annotations

import os
import threading
from importlib.util import find_spec

import torch

from mambair.ops import operators, torch_private
from mambair.system.cache_folder import use_private_compile_caches

OLDEST = (8, 0)  # compute capability; what Triton supports
OPERATORS = ("ss2d_scan", "ss2d_scan_backward", "selective_scan", "selective_scan_backward")

_lock = threading.Lock()
_implemented: set[str] = set()


def why_not(device: str, *, forced: bool = False) -> str | None:
    """Why the kernels cannot run on "cuda" or "cpu", or None. ``forced``: they were asked for by name."""
    interpreting = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes")
    if device != "cuda" and not (device == "cpu" and forced and interpreting):
        return f"it runs on CUDA devices, not on {device}"
    if find_spec("triton") is None:
        return "Triton is not installed; torch's CUDA builds bring it along"
    if device == "cpu":
        return _taken("CPU")
    if interpreting:
        return "TRITON_INTERPRET is set, and Triton's interpreter runs on the CPU only"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None and not forced:
        return "it was never tried on GPUs of AMD; force it to try"
    if torch.version.hip is None and torch.cuda.get_device_capability() < OLDEST:
        found = ".".join(map(str, torch.cuda.get_device_capability()))
        return f"Triton needs compute capability {OLDEST[0]}.{OLDEST[1]}; this GPU has {found}"
    return None


def load(device: str) -> None:
    """Give the operators their implementation for a kind of device; idempotent and thread-safe."""
    use_private_compile_caches()
    from mambair.ops.triton_kernels import registration

    key = {"cuda": "CUDA", "cpu": "CPU"}[device]
    with _lock:
        if key not in _implemented:
            operators.implement({name: getattr(registration, name) for name in OPERATORS}, key)
            _implemented.add(key)


def _taken(key: str) -> str | None:
    """An operator has one implementation for a device, so the interpreter and the native library exclude each other."""
    if key in _implemented or not torch_private.has_kernel("mambair::ss2d_scan", key):
        return None
    return "the native library was loaded before in this process; MAMBAIR_NATIVE=off prevents that"
