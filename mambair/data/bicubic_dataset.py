"""Super-resolution from ground truth alone: the inputs are MATLAB's bicubic reduction, made on the fly."""

from __future__ import annotations

import numpy as np

from mambair.data.pairing import DatasetError
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.images.lazy_image import LazyImage, Pixels
from mambair.images.resize import imresize
from mambair.registry import DATASET_REGISTRY

# output pixels around a patch that its reduction needs: the kernel reaches 2 of them to each side
_MARGIN = 3


@DATASET_REGISTRY.register()
class BicubicDataset(RestorationDataset):
    """Images of ``dataroot_gt``, cut to a multiple of ``scale``, and their bicubic reductions.

    The inputs are, bit for bit, patches of what MATLAB makes of the whole image at its own depth; the published
    training and test sets are made that way.
    """

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        path, scale = self.gt_paths[index], self.options.scale
        picture = self._picture(path)
        height, width = picture.height // scale, picture.width // scale
        if min(height, width) < 1:
            raise DatasetError(f"{path}: {picture.height} x {picture.width} pixels are too few for scale {scale}")
        if self.options.is_train:
            top, left, side = self._corner(height, width, path, rng, gt_size)
            lq, gt = self._flipped(reduced_patch(picture, scale, top, left, side), rng)
        else:
            gt = picture.whole()[: height * scale, : width * scale]
            lq = imresize(gt, 1 / scale)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(path), "gt_path": str(path)}


def reduced_patch(picture: LazyImage, scale: int, top: int, left: int, side: int) -> tuple[Pixels, Pixels]:
    """A patch of ``imresize(image, 1 / scale)`` and the pixels of ``image`` it covers; the rest is not reduced.

    ``image`` is the picture, cut to a multiple of ``scale``.

    Args:
        picture: what to take them of.
        scale: a whole factor.
        top, left, side: in pixels of the reduction.

    Returns:
        [side, side, C] and [side * scale, side * scale, C].
    """
    first_row, first_column = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
    last_row = min(top + side + _MARGIN, picture.height // scale)
    last_column = min(left + side + _MARGIN, picture.width // scale)
    region = picture.patch(
        first_row * scale,
        first_column * scale,
        (last_row - first_row) * scale,
        (last_column - first_column) * scale,
    )
    row, column = top - first_row, left - first_column
    covered = region[row * scale : (row + side) * scale, column * scale : (column + side) * scale]
    return imresize(region, 1 / scale)[row : row + side, column : column + side], covered
