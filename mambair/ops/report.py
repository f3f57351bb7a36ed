"""Which backends of the scans there are, which one is chosen and why the others declined, as rows for people."""

from __future__ import annotations

import os

import torch

from mambair.ops import backends, fused, native

TITLES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}


def backend_rows(device: str) -> dict[str, str]:
    """What each backend would do for scans on a kind of device, by its name; of the native one also which library.

    Raises:
        RequestError: the environment forces a backend that does not exist or cannot run there.
    """
    chosen, reasons = backends.explain(device)
    rows = {
        name: "chosen" if name == chosen else f"declined: {reason}" if reason else "would run it too"
        for name, reason in reasons.items()
    }
    if chosen == "native":
        rows["native library"] = f"{native.library_path()}, instruction set {native.isa()}"
        with torch.no_grad():
            reason = fused.why_not(torch.empty(0))
        rows["fused layers"] = "used for inference in float32" if reason is None else f"not used: {reason}"
    return rows


def forced() -> dict[str, str]:
    """The environment variables that are set and change what runs."""
    names = (backends.ENVIRONMENT_VARIABLE, native.MODE_VARIABLE, fused.ENVIRONMENT_VARIABLE, "MAMBAIR_ISA")
    return {name: os.environ[name] for name in names if os.environ.get(name)}
