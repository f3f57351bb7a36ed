"""Data sets for training and validation; importing this package registers them."""

from __future__ import annotations

import copy
from typing import Any

from mambair.data.bicubic_dataset import BicubicDataset
from mambair.data.gaussian_denoising_dataset import GaussianDenoisingDataset
from mambair.data.jpeg_artifacts_dataset import JPEGArtifactsDataset
from mambair.data.mixed_dataset import MixedDataset
from mambair.data.paired_image_dataset import PairedImageDataset
from mambair.data.pairing import DatasetError
from mambair.data.real_denoising_dataset import RealDenoisingDataset
from mambair.data.realesrgan_dataset import RealESRGANDataset, RealESRGANPairedDataset
from mambair.data.single_image_dataset import SingleImageDataset
from mambair.registry import DATASET_REGISTRY

__all__ = [
    "BicubicDataset",
    "DatasetError",
    "GaussianDenoisingDataset",
    "JPEGArtifactsDataset",
    "MixedDataset",
    "PairedImageDataset",
    "RealDenoisingDataset",
    "RealESRGANDataset",
    "RealESRGANPairedDataset",
    "SingleImageDataset",
    "build_dataset",
]


def build_dataset(opt: dict[str, Any]) -> Any:
    """The data set that ``opt["type"]`` names, ours or basicsr's, made with a copy of ``opt``.

    Raises:
        KeyError: nobody knows the type.
        DatasetError: one of ours cannot be made of these options.
    """
    return DATASET_REGISTRY.get(opt["type"])(copy.deepcopy(opt))
