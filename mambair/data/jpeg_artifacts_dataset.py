"""JPEG artefact removal: clean images compressed in memory, or pairs of files."""

from __future__ import annotations

import numpy as np

from mambair.data.dataset_options import JPEGOptions
from mambair.data.degradations.compression import compressed
from mambair.data.paired_image_dataset import PairedImageDataset
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.images.lazy_image import LazyImage, Pixels
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class JPEGArtifactsDataset(PairedImageDataset):
    """Images of ``dataroot_gt`` and the same after JPEG compression, in 8 bits, grey or colour.

    With ``quality`` they are compressed in memory, each as a whole: a training patch is, bit for bit, the patch of the
    compressed image, wherever its blocks of 8 pixels lie. With ``dataroot_lq`` they are files, paired by name whatever
    the suffix (``0001.png`` and ``0001.jpg``).
    """

    Options = JPEGOptions

    def _find_files(self) -> None:
        if self.options.dataroot_lq is not None:
            super()._find_files()
        else:
            RestorationDataset._find_files(self)

    def _fault_of_sizes(self, index: int) -> str | None:
        if self.options.dataroot_lq is not None:
            return super()._fault_of_sizes(index)
        return RestorationDataset._fault_of_sizes(self, index)

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        if self.options.dataroot_lq is not None:
            return super().sample(index, rng, gt_size=gt_size)
        path = self.gt_paths[index]
        picture = self._picture(path)
        if self.options.is_train:
            top, left, side = self._corner(picture.height, picture.width, path, rng, gt_size)
            quality = self._quality(rng)
            patches = compressed_patch(picture, top, left, side, quality, self.options.subsampling)
            lq, gt = self._flipped(patches, rng)
        else:
            gt, quality = picture.whole(), self._quality(rng)
            lq = compressed(gt, quality, self.options.subsampling)
        sample: Sample = {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(path), "gt_path": str(path)}
        return sample | {"degradation": f"jpeg quality {quality} {self.options.subsampling}"}

    def _quality(self, rng: np.random.Generator) -> int:
        quality = self.options.quality
        return int(rng.integers(quality[0], quality[-1] + 1)) if isinstance(quality, list) else int(quality)


def compressed_patch(
    picture: LazyImage, top: int, left: int, side: int, quality: int, subsampling: str
) -> tuple[Pixels, Pixels]:
    """A patch of the compressed image and the same of the image, [side, side, C], without compressing the whole image.

    Args:
        picture: the image.
        top, left, side: of the patch.
        quality, subsampling: as in ``compressed``.
    """
    # blocks are compressed by themselves; decoders smooth halved colour over the border of two blocks
    block, margin = (16, 16) if picture.channels == 3 and subsampling == "4:2:0" else (8, 0)
    first_row, first_column = (max(start // block * block - margin, 0) for start in (top, left))
    last_row = min(-(-(top + side) // block) * block + margin, picture.height)
    last_column = min(-(-(left + side) // block) * block + margin, picture.width)
    region = picture.patch(first_row, first_column, last_row - first_row, last_column - first_column)
    rows = slice(top - first_row, top - first_row + side)
    columns = slice(left - first_column, left - first_column + side)
    return compressed(region, quality, subsampling)[rows, columns], region[rows, columns]
