"""The timed pass: it runs in a process of its own, and a process that dies is a message."""

from __future__ import annotations

import os

import pytest
import torch

from mambair.profiling import forward_pass
from mambair.profiling.forward_pass import ForwardPassError, Settings, measure_forward_pass, run_here
from mambair.profiling.target import Target

SMALL = Target("small", "MambaIR", {"embed_dim": 12, "depths": [1]})


def test_time_and_memory_come_from_another_process() -> None:
    threads = torch.get_num_threads()
    found = measure_forward_pass(SMALL, Settings((1, 3, 160, 128), threads=1, repeats=1))
    assert 0 < found.seconds <= found.median
    assert found.threads == 1
    assert torch.get_num_threads() == threads
    if found.peak_bytes is not None:  # a few float32 maps of 12 to 24 channels, and no more than a hundred of them
        assert 12 * 160 * 128 * 4 < found.peak_bytes < 100 * 24 * 160 * 128 * 4


def test_lower_precision_runs() -> None:
    assert run_here(SMALL, Settings((1, 3, 16, 16), dtype="bfloat16", repeats=1)).seconds > 0


def test_a_network_that_fails_says_why() -> None:
    with pytest.raises(ForwardPassError, match=r"the network failed: x must be \[B, 3, H, W\]"):
        measure_forward_pass(SMALL, Settings((1, 1, 16, 16)))


def leave(target: Target, settings: Settings) -> None:
    os._exit(9)


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_pass, "run_here", leave)
    with pytest.raises(ForwardPassError, match="was killed, probably because it ran out of memory; try a smaller size"):
        measure_forward_pass(SMALL, Settings((1, 3, 16, 16)))
