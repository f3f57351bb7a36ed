"""Pairs of images from two folders, as BasicSR's data set of the same name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mambair.data.dataset_options import PairedOptions
from mambair.data.image_folders import DatasetError, paired_images
from mambair.data.restoration_dataset import Pixels, RestorationDataset, Sample, to_tensor
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
        lq = self._read(lq_path)
        gt = self._fitting(self._read(gt_path), lq, gt_path, lq_path)
        if self.options.is_train:
            scale = self.options.scale
            top, left, side = self._corner(*lq.shape[:2], lq_path, rng)
            lq = lq[top : top + side, left : left + side]
            gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
            lq, gt = self._flipped((lq, gt), rng)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(lq_path), "gt_path": str(gt_path)}

    def _fitting(self, gt: Pixels, lq: Pixels, gt_path: Path, lq_path: Path) -> Pixels:
        scale = self.options.scale
        height, width = lq.shape[0] * scale, lq.shape[1] * scale
        if not (0 <= gt.shape[0] - height < scale and 0 <= gt.shape[1] - width < scale):
            raise DatasetError(
                f"{gt_path}: {gt.shape[0]} x {gt.shape[1]} pixels do not fit {lq_path} with {lq.shape[0]} x "
                f"{lq.shape[1]} at scale {scale}: expected {height} x {width}"
            )
        return gt[:height, :width]
