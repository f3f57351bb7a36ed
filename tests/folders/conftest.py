"""A network whose output is known, small pictures, and what lies in a folder."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mambair.inference.restorer import Restorer
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint


class Replicate(nn.Module):
    """Repeats pixels, and counts its calls."""

    in_chans = 3

    def __init__(self, upscale: int = 2) -> None:
        super().__init__()
        self.upscale = upscale
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.repeat_interleave(self.upscale, -2).repeat_interleave(self.upscale, -1)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored; tests of Ctrl-C need Python's own handler there, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def restorer() -> Restorer:
    """Enlarges by two, exactly."""
    return Restorer(Replicate(), device="cpu", tile=32)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch uses, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five small pictures, a.png to e.png."""
    (tmp_path / "in").mkdir()
    for index, letter in enumerate("abcde"):
        values = np.random.default_rng(index).integers(0, 256, (4 + index, 6, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "in" / f"{letter}.png")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def weights_x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of a very small MambaIR that enlarges by two."""
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": 2}
    kwargs["upsampler"] = "pixelshuffledirect"
    net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.safetensors"
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)})
    return path
