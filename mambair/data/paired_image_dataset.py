"""Pairs of images from two folders or databases, as BasicSR's data set of the same name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mambair.data.dataset_options import PairedOptions
from mambair.data.pairing import DatasetError
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.data.sources import pair_sources
from mambair.images.files import ImageFileError
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class PairedImageDataset(RestorationDataset):
    """Low-quality images in ``dataroot_lq`` and their ground truth in ``dataroot_gt``, paired by name.

    Each ground truth is ``scale`` times as large as its partner, or a rest below ``scale`` larger, which is cut off at
    the bottom and right (test sets are kept that way). Suffixes may differ (``.png`` and ``.jpg``).
    """

    Options = PairedOptions

    def _find_files(self) -> None:
        super()._find_files()
        pairs = pair_sources(
            self._source("dataroot_gt"),
            self._source("dataroot_lq"),
            self.options.filename_tmpl,
            is_subset=self.options.meta_info_file is not None,
        )
        self.gt_paths = [gt_path for gt_path, _ in pairs]
        self.lq_paths: list[Path] = [lq_path for _, lq_path in pairs]

    # where the low-quality images are read from
    _lq_key = "dataroot_lq"

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        gt_path, lq_path, scale = self.gt_paths[index], self.lq_paths[index], self.options.scale
        lq_picture, gt_picture = self._picture(lq_path, self._lq_key), self._picture(gt_path)
        height, width = lq_picture.height, lq_picture.width
        misfit = self._misfit(index, (gt_picture.height, gt_picture.width), (height, width))
        if misfit:
            raise DatasetError(misfit)
        if self.options.is_train:
            top, left, side = self._corner(height, width, lq_path, rng, gt_size)
            lq = lq_picture.patch(top, left, side, side)
            gt = gt_picture.patch(top * scale, left * scale, side * scale, side * scale)
            lq, gt = self._flipped((lq, gt), rng)
        else:
            lq, gt = lq_picture.whole(), gt_picture.whole()[: height * scale, : width * scale]
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(lq_path), "gt_path": str(gt_path)}

    def _misfit(self, index: int, gt_size: tuple[int, int], lq_size: tuple[int, int]) -> str | None:
        """What is wrong with the (height, width) of a pair."""
        scale = self.options.scale
        height, width = lq_size[0] * scale, lq_size[1] * scale
        if 0 <= gt_size[0] - height < scale and 0 <= gt_size[1] - width < scale:
            return None
        return (
            f"{self.gt_paths[index]}: {gt_size[0]} x {gt_size[1]} pixels do not fit {self.lq_paths[index]} with "
            f"{lq_size[0]} x {lq_size[1]} at scale {scale}: expected {height} x {width}"
        )

    def _fault_of_sizes(self, index: int) -> str | None:
        fault = super()._fault_of_sizes(index)
        if fault:
            return fault
        try:
            gt_size = self._source("dataroot_gt").read(self.gt_paths[index]).size()
            lq_size = self._source(self._lq_key).read(self.lq_paths[index]).size()
        except ImageFileError as error:
            return f"{self._lq_key}: {error}"
        misfit = self._misfit(index, gt_size, lq_size)
        return f"{self._lq_key}: {misfit}" if misfit else None
