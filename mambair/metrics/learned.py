"""Distances of images by networks' features: LPIPS (Zhang et al., CVPR 2018) and DISTS (Ding et al., TPAMI 2022).

Both come from torchmetrics (extra ``[perceptual]``), which also has their small trained parts. The large networks under
them are torchvision's; their weights must be in torch's cache, and nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mambair.metrics.image_pairs import adapt_image, check_pair, peak_value
from mambair.registry import METRIC_REGISTRY
from mambair.system.console import printable
from mambair.system.errors import RequestError
from mambair.system.tables import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

# the weights of torchvision's networks, at download.pytorch.org/models
FILES = {"alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth", "vgg": "vgg16-397923af.pth"}
TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
SMALLEST = {"alex": 35, "squeeze": 35, "vgg": 16}
Backbone = Literal["alex", "squeeze", "vgg"]


def lpips_network(net: Backbone) -> nn.Module:
    """A module that takes two batches [B, 3, H, W] in [-1, 1] and gives [B, 1, 1, 1]; its weights are frozen.

    Raises:
        RequestError: torchmetrics, torchvision or the weights are missing.
        ValueError: an unknown ``net``.
    """
    if net not in FILES:
        raise ValueError(f"net must be one of {', '.join(FILES)}, got {net!r}")
    image = _torchmetrics("torchmetrics.image.lpip")
    with _tensors_only(net):
        return image.LearnedPerceptualImagePatchSimilarity(net_type=net).net


def dists_network() -> nn.Module:
    """A module that takes two batches [B, 3, H, W] in [0, 1] and gives [B]; its weights are frozen.

    Raises:
        RequestError: torchmetrics, torchvision or the weights are missing.
    """
    functional = _torchmetrics("torchmetrics.functional.image.dists")
    with _tensors_only("vgg"):
        return functional.DISTSNetwork().requires_grad_(False).eval()


def _torchmetrics(module: str) -> Any:
    try:
        importlib.import_module("torchvision")
        return importlib.import_module(module)
    except ImportError as error:
        raise RequestError(
            f"LPIPS and DISTS need torchmetrics and torchvision ({error}); run: pip install 'mambair[perceptual]'"
        ) from None


@contextlib.contextmanager
def _tensors_only(net: Backbone) -> Iterator[None]:
    """Let torchvision, which would unpickle anything, read the weights of a network, and nothing but tensors."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / FILES[net]
    if not path.is_file():
        raise RequestError(
            f"{path}: no such file; download https://download.pytorch.org/models/{FILES[net]} and put it there"
        )
    before = os.environ.get(TENSORS_ONLY)
    os.environ[TENSORS_ONLY] = "1"
    try:
        yield
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = printable(first_line(error))
        raise RequestError(f"{path} cannot be used ({reason}); delete it and download it again") from error
    finally:
        if before is None:
            del os.environ[TENSORS_ONLY]
        else:
            os.environ[TENSORS_ONLY] = before


@METRIC_REGISTRY.register()
def calculate_lpips(
    img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = "HWC", net: Backbone = "alex"
) -> float:
    """LPIPS; 0 for equal images, lower is better.

    Args:
        img, img2, crop_border, input_order: as of `calculate_psnr`.
        net: network whose features are compared; papers state "alex" for measuring and "vgg" for training.

    Raises:
        ValueError: images that cannot be measured, or weights that are missing.
    """
    check_pair(img, img2, crop_border=crop_border, input_order=input_order, smallest=SMALLEST.get(net, 1))
    peak = peak_value(img, img2, None)
    first, second = (_batch(image, peak, crop_border, input_order) for image in (img, img2))
    return float(_lpips(net)(2 * first - 1, 2 * second - 1))


@METRIC_REGISTRY.register()
def calculate_dists(img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = "HWC") -> float:
    """DISTS; 0 for equal images, lower is better. Args and raises as of `calculate_lpips`."""
    check_pair(img, img2, crop_border=crop_border, input_order=input_order, smallest=SMALLEST["vgg"])
    peak = peak_value(img, img2, None)
    first, second = (_batch(image, peak, crop_border, input_order) for image in (img, img2))
    return float(_dists()(first, second))


calculate_lpips.better = calculate_dists.better = "lower"
_lpips, _dists = lru_cache(maxsize=3)(lpips_network), lru_cache(maxsize=1)(dists_network)


def _batch(image: np.ndarray, peak: float, crop_border: int, input_order: str) -> Tensor:
    """[1, 3, H, W] RGB in [0, 1]; grey is repeated."""
    import torch

    planes = adapt_image(image, crop_border=crop_border, input_order=input_order, test_y_channel=False, peak=peak)
    rgb = np.ascontiguousarray(planes[::-1], dtype=np.float32) / np.float32(peak)
    return torch.from_numpy(rgb).expand(3, -1, -1).unsqueeze(0)
