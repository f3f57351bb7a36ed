"""Names of devices: the automatic choice, and refusals that list what this machine has."""

from __future__ import annotations

import re

import pytest
import torch

from mambair.system import devices
from mambair.system.devices import available_devices, choose_device


def machine(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int = 0) -> None:
    """Let torch report an accelerator of that kind."""
    accelerator = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: accelerator)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")


@pytest.mark.parametrize(
    ("kind", "count", "available"),
    [
        (None, 0, ["cpu"]),
        ("cuda", 2, ["cpu", "cuda:0", "cuda:1"]),
        ("mps", 1, ["cpu", "mps:0"]),
    ],
)
def test_available(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, available: list[str]) -> None:
    machine(monkeypatch, kind, count)
    assert available_devices() == available


@pytest.mark.parametrize(
    ("kind", "count", "name", "chosen"),
    [
        (None, 0, "auto", "cpu"),
        (None, 0, None, "cpu"),
        (None, 0, "cpu", "cpu"),
        ("cuda", 2, "auto", "cuda"),
        ("cuda", 2, "cuda", "cuda"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("cuda", 2, torch.device("cuda", 1), "cuda:1"),
        ("cuda", 2, "cpu", "cpu"),
        ("mps", 1, "mps", "mps"),
        ("mps", 1, "auto", "cpu"),
    ],
    ids=str,
)
def test_chosen(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, name: str | torch.device | None, chosen: str
) -> None:
    machine(monkeypatch, kind, count)
    assert str(choose_device(name)) == chosen


@pytest.mark.parametrize(
    ("kind", "count", "name", "message"),
    [
        (None, 0, "toaster", "device: must be auto, cpu, cuda, cuda:N or mps, got 'toaster'; this machine has cpu"),
        (None, 0, "cuda", "device: cuda is not available; this machine has cpu"),
        ("cuda", 2, "cuda:2", "device: cuda:2 is not available; this machine has cpu, cuda:0, cuda:1"),
        ("cuda", 1, "mps", "device: mps is not available; this machine has cpu, cuda:0"),
        (None, 0, "meta", "device: meta is not available; this machine has cpu"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, name: str, message: str) -> None:
    machine(monkeypatch, kind, count)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        choose_device(name)


def test_dtypes_are_names_of_torch() -> None:
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in devices.DTYPES.values())
