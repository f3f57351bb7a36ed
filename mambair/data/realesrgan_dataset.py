"""Training on real photographs: inputs degraded as Real-ESRGAN does, or pairs of files with sharpened targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mambair.data.degradations.pipeline import Steps, degrade
from mambair.data.degradations.recipe import described, draw_recipe
from mambair.data.degradations.sharpening import sharpened
from mambair.data.paired_image_dataset import PairedImageDataset
from mambair.data.pairing import DatasetError, text_lines
from mambair.data.realesrgan_options import RealESRGANOptions, RealESRGANPairedOptions, TargetOptions
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.data.sources import ImageSource
from mambair.images.lazy_image import to_float
from mambair.registry import DATASET_REGISTRY

_SEEDS = 2**63


@DATASET_REGISTRY.register()
class RealESRGANDataset(RestorationDataset):
    """Images of ``dataroot_gt``, degraded by steps that every sample draws for itself (Wang et al., 2021).

    A sample's degradation is a function of one number drawn from its generator, so it is the same in any worker, on a
    CPU or a GPU, and after a resumption. Validation images are degraded whole, each always alike, and not sharpened.
    """

    Options = RealESRGANOptions

    def _find_files(self) -> None:
        names = self.options.meta_info or self.options.meta_info_file
        backend, roots = self.options.io_backend.type, self.options.dataroot_gt
        source = ImageSource("dataroot_gt", roots, backend=backend, recursive=names is not None)
        if names is not None:
            source.select(names)
        self.sources["dataroot_gt"], self.gt_paths = source, source.paths

    def _fault_of_sizes(self, index: int) -> str | None:
        return self._fault_of_header("dataroot_gt", self.gt_paths[index])

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        path = self.gt_paths[index]
        paths: Sample = {"lq_path": str(path), "gt_path": str(path)}
        if not self.options.is_train:
            return self._degraded(self._whole(path).unsqueeze(0), [int(rng.integers(_SEEDS))], None) | paths
        side = gt_size or self.options.largest_gt_size
        region, seed = self._region(path, side, rng), int(rng.integers(_SEEDS))
        if self.options.degrade_on == "device":
            return {"gt": region, "degradation_seed": torch.tensor(seed), "gt_size": torch.tensor(side), **paths}
        return self._degraded(region.unsqueeze(0), [seed], side) | paths

    def finish_batch(self, batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Degrade a batch of ``degrade_on: device`` there; other batches are returned as they are.

        Args:
            batch: collated samples.
            device: where to compute.

        Returns:
            ``lq`` [B, C, h, w], ``gt`` [B, C, H, W] and perhaps ``gt_gan`` on the device, ``lq_path``, ``gt_path``.
        """
        if "degradation_seed" not in batch:
            return dict(batch)
        gt = batch["gt"].to(device, non_blocking=True)
        seeds, side = batch["degradation_seed"].tolist(), int(batch["gt_size"][0])
        tensors, texts = self._batch(gt, seeds, side, files=False)
        return {**tensors, "degradation": texts, "lq_path": batch["lq_path"], "gt_path": batch["gt_path"]}

    def _whole(self, path: Path) -> Tensor:
        picture, scale = self._picture(path), self.options.scale
        height, width = picture.height // scale * scale, picture.width // scale * scale
        if min(height, width) < 1:
            raise DatasetError(f"{path}: {picture.height} x {picture.width} pixels are too few for scale {scale}")
        return to_tensor(picture.whole()[:height, :width])

    def _region(self, path: Path, gt_size: int, rng: np.random.Generator) -> Tensor:
        """A random region [C, R, R], reflected at the bottom and right where the image ends."""
        picture, region = self._picture(path), self.options.region(gt_size)
        height, width = min(picture.height, region), min(picture.width, region)
        top, left = int(rng.integers(picture.height - height + 1)), int(rng.integers(picture.width - width + 1))
        pixels = to_float(picture.patch(top, left, height, width))
        pixels, _ = self._flipped((pixels, pixels), rng)
        missing = [(0, region - length) for length in pixels.shape[:2]]
        return to_tensor(np.pad(pixels, [*missing, (0, 0)], mode="reflect"))

    def _degraded(self, gt: Tensor, seeds: Sequence[int], side: int | None) -> Sample:
        tensors, texts = self._batch(gt, seeds, side, files=True)
        return {key: tensor[0] for key, tensor in tensors.items()} | {"degradation": texts[0]}

    def _batch(
        self, gt: Tensor, seeds: Sequence[int], side: int | None, *, files: bool
    ) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors of a batch made of ground truth [B, C, H, W], cut to ``side``, and the degradations as text."""
        height, width, scale = *gt.shape[-2:], self.options.scale
        generators = [np.random.default_rng(seed) for seed in seeds]
        recipes: list[Steps] = [draw_recipe(self.options, height, width, scale, rng) for rng in generators]
        corners = [self._patch(height, width, side, rng) for rng in generators]
        source, tensors = _targets(gt, self.options) if self.options.is_train else (gt, {"gt": gt})
        tensors["lq"] = degrade(source, recipes, files=files)
        cut = {key: _cut(images, corners, 1 if key == "lq" else scale) for key, images in tensors.items()}
        return cut, [described(recipe) for recipe in recipes]

    def _patch(self, height: int, width: int, side: int | None, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of the patch, in input pixels."""
        height, width = height // self.options.scale, width // self.options.scale
        if side is None:
            return 0, 0, height, width
        small = side // self.options.scale
        return int(rng.integers(height - small + 1)), int(rng.integers(width - small + 1)), small, small


@DATASET_REGISTRY.register()
class RealESRGANPairedDataset(PairedImageDataset):
    """Pairs as in PairedImageDataset, with Real-ESRGAN's sharpened targets.

    A ``meta_info`` file names a pair in each line, ``<ground truth>, <low quality>``, both below their folders.
    """

    Options = RealESRGANPairedOptions

    def _find_files(self) -> None:
        if self.options.meta_info is None:
            super()._find_files()
            return
        pairs, backend = _pairs_in(self.options.meta_info), self.options.io_backend.type
        found: list[list[Path]] = []
        for place, key in enumerate(("dataroot_gt", "dataroot_lq")):
            source = ImageSource(key, getattr(self.options, key), backend=backend, recursive=True)
            source.choose([pair[place] for pair in pairs], self.options.meta_info, key="meta_info")
            self.sources[key] = source
            found.append(source.paths)
        self.gt_paths, self.lq_paths = found

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        sample = super().sample(index, rng, gt_size=gt_size)
        gt = sample["gt"]
        if not self.options.is_train or not isinstance(gt, Tensor):
            return sample
        return sample | {key: images[0] for key, images in _targets(gt.unsqueeze(0), self.options)[1].items()}


def _targets(gt: Tensor, options: TargetOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """The images that inputs are made of; and ``gt``, with ``gt_gan`` where a discriminator gets the other kind."""
    is_sharp, for_gan = options.is_target_sharp, options.gan_gt_usm
    sharp = sharpened(gt) if options.gt_usm or is_sharp or for_gan else gt
    targets = {"gt": sharp if is_sharp else gt}
    if for_gan is not None and for_gan != is_sharp:
        targets["gt_gan"] = sharp if for_gan else gt
    return sharp if options.gt_usm else gt, targets


def _cut(images: Tensor, corners: Sequence[tuple[int, int, int, int]], scale: int) -> Tensor:
    """From each image [C, H, W] its (top, left, height, width), times ``scale``."""
    parts = []
    for image, corner in zip(images, corners, strict=True):
        top, left, height, width = (number * scale for number in corner)
        parts.append(image[:, top : top + height, left : left + width])
    return torch.stack(parts)


def _pairs_in(meta_info: str) -> list[tuple[str, str]]:
    """The lines ``<ground truth>, <low quality>`` of a file."""
    pairs = []
    for number, line in enumerate(text_lines("meta_info", meta_info), 1):
        names = [name.strip() for name in line.split(",")]
        if len(names) != 2 or not all(names):
            raise DatasetError(f"meta_info: {meta_info}, line {number}: expected '<ground truth>, <low quality>'")
        pairs.append((names[0], names[1]))
    return pairs
