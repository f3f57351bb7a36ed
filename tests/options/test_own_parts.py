"""What a user's own network, loss or metric raises when it is tried is a fault of the option file, not a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, Registry

Changes = tuple[str, str]
CASES: dict[str, tuple[Registry, Changes, str]] = {
    "network": (
        ARCH_REGISTRY,
        (
            "type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n  mlp_ratio: 1.2\n"
            "  upsampler: pixelshuffledirect\n",
            "type: odd\n",
        ),
        "network_g: odd refuses these values: ",
    ),
    "loss": (LOSS_REGISTRY, ("type: L1Loss", "type: odd"), "train.pixel_opt: odd refuses these values: "),
    "metric": (
        METRIC_REGISTRY,
        ("type: calculate_psnr\n      crop_border: 4", "type: odd"),
        "val.metrics.psnr: odd refuses these values: ",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (AssertionError(), "AssertionError"),
        (KeyError("side"), "'side'"),
        (OSError("no file\nno line"), "no file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_it_raises_is_a_fault_of_the_file(
    case: str,
    error: Exception,
    reason: str,
    write: Callable[..., Path],
    refused: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, change, expected = CASES[case]
    registry.keys()  # filled before it is changed

    def odd(img: object = None, img2: object = None) -> None:
        raise error

    monkeypatch.setitem(registry._entries, "odd", odd)
    (line,) = refused(write(change))
    assert line.endswith(expected + reason)
