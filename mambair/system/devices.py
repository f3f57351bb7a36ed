"""Devices and precisions by the names that command lines and the Restorer take; torch is imported at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AUTO = "auto"
# name on command lines -> name of the torch dtype
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def available_devices() -> list[str]:
    """The devices of this machine that torch can use: ``cpu``, then e.g. ``cuda:0``, ``cuda:1`` or ``mps:0``."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))]


def choose_device(device: str | torch.device | None = AUTO) -> torch.device:
    """Return the device of a name.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...; ``auto`` or None is CUDA if there is one, else the CPU.

    Raises:
        ValueError: the name is unknown, or this machine has no such device; the message lists those it has.
    """
    import torch

    if device is None or device == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = available_devices()
    has = f"this machine has {', '.join(available)}"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: must be auto, cpu, cuda, cuda:N or mps, got {device!r}; {has}") from error
    if chosen.type != "cpu" and f"{chosen.type}:{chosen.index or 0}" not in available:
        raise ValueError(f"device: {device} is not available; {has}")
    return chosen
