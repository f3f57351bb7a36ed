"""JPEG artefact removal: clean images compressed in memory, or pairs of files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mambair.data.dataset_options import JPEGOptions
from mambair.data.paired_image_dataset import PairedImageDataset
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.images.lazy_image import LazyImage, Pixels, to_uint8
from mambair.registry import DATASET_REGISTRY

_SUBSAMPLINGS = {"4:4:4": 0, "4:2:0": 2}  # Pillow's numbers


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
            patches = compressed_patch(picture, top, left, side, self._quality(rng), self.options.subsampling)
            lq, gt = self._flipped(patches, rng)
        else:
            gt = picture.whole()
            lq = compressed(gt, self._quality(rng), self.options.subsampling)
        return {"lq": to_tensor(lq), "gt": to_tensor(gt), "lq_path": str(path), "gt_path": str(path)}

    def _quality(self, rng: np.random.Generator) -> int:
        quality = self.options.quality
        return int(rng.integers(quality[0], quality[-1] + 1)) if isinstance(quality, list) else int(quality)


def compressed(pixels: Pixels, quality: int, subsampling: str) -> Pixels:
    """Pixels [H, W, 1 or 3] after JPEG compression, as uint8.

    Args:
        pixels: of any image dtype; other than 8 bits are rounded to 8 first.
        quality: 1 to 100, as libjpeg (and MATLAB) counts.
        subsampling: of the colour: ``4:2:0`` or ``4:4:4``; without meaning for grey.
    """
    is_grey = pixels.shape[2] == 1
    stored = to_uint8(pixels)
    picture = Image.fromarray(np.ascontiguousarray(stored[:, :, 0] if is_grey else stored))
    stream = io.BytesIO()
    if is_grey:
        picture.save(stream, "JPEG", quality=quality)
    else:
        picture.save(stream, "JPEG", quality=quality, subsampling=_SUBSAMPLINGS[subsampling])
    decoded = np.array(Image.open(stream, formats=("JPEG",)))
    return decoded[:, :, None] if is_grey else decoded


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
