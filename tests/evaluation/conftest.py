"""A folder of tiny test sets cut from the example images, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.images.resize import imresize
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint

SIDE = 24


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.squeeze(pixels)).save(path)


@pytest.fixture
def data(tmp_path: Path, repository: Path) -> Path:
    """Set5 with reductions by 2, Set14 without any and of odd size, McMaster of the wrong number, grey Classic5."""
    root = tmp_path / "data"
    sources = sorted((repository / "datasets/example/gt").glob("*.png"))
    images = [np.asarray(Image.open(path).convert("RGB"))[30 : 30 + SIDE, 30 : 30 + SIDE] for path in sources[:5]]
    for index, image in enumerate(images):
        save(root / f"set5/HR/im{index}.png", image)
        save(root / f"set5/LR_bicubic/X2/im{index}x2.png", np.asarray(imresize(image, 0.5)))
        save(root / f"classic5/im{index}.bmp", image[:, :, 1])
    save(root / "Set14/only.png", images[0][:23, :21])
    save(root / "McM/a.png", images[0])
    save(root / "McM/b.png", images[1])
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of random weights for a tiny MambaIR."""

    def make(name: str = "tiny", seed: int = 0, **kwargs: object) -> Path:
        torch.manual_seed(seed)
        arguments = {"embed_dim": 12, "depths": [1], "d_state": 2, **kwargs}
        net = ARCH_REGISTRY.get("MambaIR")(**arguments)
        path = tmp_path / f"{name}.safetensors"
        write_checkpoint(path, net.state_dict(), {})
        return path

    return make


@pytest.fixture
def enlarging(weights: Callable[..., Path]) -> Path:
    return weights("tiny_x2", upscale=2, upsampler="pixelshuffledirect")
