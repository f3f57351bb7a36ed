"""Pairs of images from two folders, as BasicSR's data set of the same name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mambair.data.dataset_options import PairedOptions
from mambair.data.image_files import ImageFileError, read_size
from mambair.data.image_folders import DatasetError, paired_images
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class PairedImageDataset(RestorationDataset):
    """Low-quality images in ``dataroot_lq`` and their ground truth in ``dataroot_gt``, paired by name.

    Each ground truth is ``scale`` times as large as its partner, or a rest below ``scale`` larger, which is cut off at
    the bottom and right (test sets are kept that way).
    """

    Options = PairedOptions

    def _find_files(self) -> None:
        super()._find_files()
        pairs = paired_images(
            self.options.dataroot_lq,
            self.gt_paths,
            self.options.filename_tmpl,
            is_subset=self.options.meta_info_file is not None,
        )
        self.lq_paths: list[Path] = [lq_path for _, lq_path in pairs]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        gt_path, lq_path = self.gt_paths[index], self.lq_paths[index]
        lq, gt = self._read(lq_path), self._read(gt_path)
        misfit = self._misfit(index, gt.shape[:2], lq.shape[:2])
        if misfit:
            raise DatasetError(misfit)
        gt = gt[: lq.shape[0] * self.options.scale, : lq.shape[1] * self.options.scale]
        if self.options.is_train:
            scale = self.options.scale
            top, left, side = self._corner(*lq.shape[:2], lq_path, rng)
            lq = lq[top : top + side, left : left + side]
            gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
            lq, gt = self._flipped((lq, gt), rng)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(lq_path), "gt_path": str(gt_path)}

    def _misfit(self, index: int, gt_size: tuple[int, ...], lq_size: tuple[int, ...]) -> str | None:
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
            misfit = self._misfit(index, read_size(self.gt_paths[index]), read_size(self.lq_paths[index]))
        except ImageFileError as error:
            return f"dataroot_lq: {error}"
        return f"dataroot_lq: {misfit}" if misfit else None
