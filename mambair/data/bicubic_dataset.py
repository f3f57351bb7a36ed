"""Super-resolution from ground truth alone: the inputs are MATLAB's bicubic reduction, made on the fly."""

from __future__ import annotations

import numpy as np

from mambair.data.image_folders import DatasetError
from mambair.data.imresize import imresize
from mambair.data.restoration_dataset import Pixels, RestorationDataset, Sample, to_tensor
from mambair.registry import DATASET_REGISTRY

# output pixels around a patch that its reduction needs: the kernel reaches 2 of them to each side
_MARGIN = 3


@DATASET_REGISTRY.register()
class BicubicDataset(RestorationDataset):
    """Images of ``dataroot_gt``, cut to a multiple of ``scale``, and their bicubic reductions.

    The inputs are, bit for bit, patches of what MATLAB makes of the whole image at its own depth; the published
    training and test sets are made that way.
    """

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        path, scale = self.gt_paths[index], self.options.scale
        gt = self._read(path)
        height, width = gt.shape[0] // scale, gt.shape[1] // scale
        if min(height, width) < 1:
            raise DatasetError(f"{path}: {gt.shape[0]} x {gt.shape[1]} pixels are too few for scale {scale}")
        gt = gt[: height * scale, : width * scale]
        if self.options.is_train:
            top, left, side = self._corner(height, width, path, rng)
            lq = reduced_patch(gt, scale, top, left, side)
            gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
            lq, gt = self._flipped((lq, gt), rng)
        else:
            lq = imresize(gt, 1 / scale)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(path), "gt_path": str(path)}


def reduced_patch(image: Pixels, scale: int, top: int, left: int, side: int) -> Pixels:
    """``imresize(image, 1 / scale)[top : top + side, left : left + side]`` without reducing the whole image.

    Args:
        image: [H, W, C], H and W multiples of ``scale``.
        top, left, side: in pixels of the reduction.
    """
    first_row, first_column = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
    region = image[
        first_row * scale : (top + side + _MARGIN) * scale, first_column * scale : (left + side + _MARGIN) * scale
    ]
    row, column = top - first_row, left - first_column
    return imresize(region, 1 / scale)[row : row + side, column : column + side]
