"""What all data sets of this project share: decoding, caching, aligned patches, flips, and tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from torch.utils.data import Dataset

from mambair.data.dataset_options import DatasetOptions, ImageOptions, own_options
from mambair.data.pairing import DatasetError
from mambair.data.sources import ImageSource
from mambair.images.files import ImageFileError
from mambair.images.lazy_image import LazyImage, Pixels, to_float

Sample = dict[str, Tensor | str]

AUTOMATIC_CACHE_BYTES = 256 * 2**20
HEADERS_CHECKED = 8


class RestorationDataset(Dataset[Sample]):
    """Pairs of a degraded image ``lq`` and its ground truth ``gt``; one subclass per task.

    In phase ``train`` a sample is a random patch with random flips, else a whole image.

    Args:
        opt: a data set of an option file, in BasicSR's vocabulary; keys that only concern the loader are passed over.

    Raises:
        DatasetError: listing every fault of the options and of the folders they name.
    """

    Options: ClassVar[type[ImageOptions]] = DatasetOptions

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: Any = validated(self.Options, opt)
        self.gt_paths: list[Path] = []
        self.sources: dict[str, ImageSource] = {}
        self._find_files()
        self._cache: dict[Path, Pixels] = {}
        self._cache_room = {True: float("inf"), False: 0, None: AUTOMATIC_CACHE_BYTES}[self.options.cache]

    @classmethod
    def check(cls, opt: dict[str, Any]) -> list[str]:
        """Faults of the options and the folders they name, as ``key: what is wrong``; empty if there are none.

        Cheap: folders are listed, headers are read, in training those of a few images, and no pixel is decoded.
        """
        try:
            dataset = cls(opt)
        except DatasetError as error:
            return error.faults
        step = max(1, len(dataset) // HEADERS_CHECKED) if dataset.options.is_train else 1
        try:
            faults = [dataset._fault_of_sizes(index) for index in range(0, len(dataset), step)]
        finally:
            for source in dataset.sources.values():
                source.close()  # another reader, such as basicsr's, may open the database next
        if dataset.options.is_train and dataset.options.skip_unreadable and None in faults:
            return []
        return [fault for fault in faults if fault][:1]

    def sizes(self) -> dict[int, tuple[int, int]]:
        """{number: (height, width)} of the ground truth, by the headers; without images that cannot be read."""
        return self._sizes_in("dataroot_gt", self.gt_paths)

    def _sizes_in(self, root: str, paths: Sequence[Path]) -> dict[int, tuple[int, int]]:
        source, found = self._source(root), {}
        for index, path in enumerate(paths):
            with contextlib.suppress(ImageFileError):
                found[index] = source.read(path).size()
        return found

    def _fault_of_header(self, root: str, path: Path) -> str | None:
        """Why the size of an image of the folder ``root`` cannot be read."""
        try:
            self._source(root).read(path).size()
        except ImageFileError as error:
            return f"{root}: {error}"
        return None

    def _fault_of_sizes(self, index: int) -> str | None:
        """What is wrong with the sizes of image ``index``, judged by the headers; subclasses extend it."""
        path, side = self.gt_paths[index], self.options.largest_gt_size
        try:
            height, width = self._source("dataroot_gt").read(path).size()
        except ImageFileError as error:
            return f"dataroot_gt: {error}"
        if self.options.is_train and min(height, width) < side:
            return f"gt_size: {path} has {height} x {width} pixels, too few for patches of {side}"
        return None

    def _find_files(self) -> None:
        """List the files; subclasses with more folders extend it."""
        gt = self._source("dataroot_gt")
        if self.options.meta_info_file is not None:
            gt.select(self.options.meta_info_file)
        self.gt_paths = gt.paths

    def _source(self, key: str) -> ImageSource:
        """The images of ``dataroot_gt`` or ``dataroot_lq``, listed once."""
        if key not in self.sources:
            backend = self.options.io_backend.type
            # a meta-info file may name images of folders below
            recursive = self.options.meta_info_file is not None
            self.sources[key] = ImageSource(key, getattr(self.options, key), backend=backend, recursive=recursive)
        return self.sources[key]

    def __len__(self) -> int:
        return len(self.gt_paths)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``. In phase ``train`` it is a different patch at every call; ``sample`` gives control."""
        return self.sample(index, np.random.default_rng() if self.options.is_train else np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        """One sample, a pure function of its arguments.

        Args:
            index: number of the image, below ``len(self)``.
            rng: the source of everything random.
            gt_size: side of the patch, in place of that of the options.

        Returns:
            ``lq`` [C, h, w] and ``gt`` [C, h * scale, w * scale], float32 RGB (or one channel) in [0, 1], and their
            files ``lq_path`` and ``gt_path``; data sets that draw a degradation add it as text, ``degradation``.

        Raises:
            ImageFileError: an image cannot be read.
            DatasetError: an image is smaller than the patch, or the sizes of a pair do not fit.
        """
        raise NotImplementedError

    def gt_size_at(self, iteration: int) -> int | None:
        """Side of the patches in optimiser step ``iteration`` (from 0), by ``gt_sizes`` and ``iters`` if given."""
        sizes, steps = self.options.gt_sizes, self.options.iters
        if not sizes or not steps:
            return self.options.gt_size
        ends = np.cumsum(steps)
        return sizes[min(int(np.searchsorted(ends, iteration, side="right")), len(sizes) - 1)]

    def _picture(self, path: Path, key: str = "dataroot_gt") -> LazyImage:
        """The image ``path`` of a source, kept in memory in whole while there is room."""
        pixels = self._cache.get(path)
        if pixels is not None:
            return LazyImage(pixels)
        picture = LazyImage(self._source(key).read(path), self.options.color)
        if picture.height * picture.width * picture.channels > self._cache_room:
            return picture
        pixels = picture.whole()
        if pixels.nbytes <= self._cache_room:
            self._cache_room -= pixels.nbytes
            self._cache[path] = pixels
        return LazyImage(pixels)

    def _corner(
        self, height: int, width: int, path: Path, rng: np.random.Generator, gt_size: int | None
    ) -> tuple[int, int, int]:
        """Row, column and side of a random patch, in low-quality pixels.

        Args:
            height, width: of the low-quality image.
            gt_size: side of the patch in ground-truth pixels; None takes that of the options.
        """
        scale, gt_size = self.options.scale, gt_size or self.options.largest_gt_size
        side = gt_size // scale
        if min(height, width) < side:
            raise DatasetError(
                f"{path}: {height * scale} x {width * scale} pixels are too few for patches of gt_size "
                f"{gt_size}; take the image out or choose a gt_size up to {min(height, width) * scale}"
            )
        return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side

    def _flipped(self, images: tuple[Pixels, Pixels], rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """The same random flips and quarter turn for both images."""
        mirror, upset, turn = rng.random(3) < 0.5
        lq, gt = images
        if mirror and self.options.use_hflip:
            lq, gt = lq[:, ::-1], gt[:, ::-1]
        if upset and self.options.use_rot:
            lq, gt = lq[::-1], gt[::-1]
        if turn and self.options.use_rot:
            lq, gt = lq.swapaxes(0, 1), gt.swapaxes(0, 1)
        return lq, gt


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], opt: dict[str, Any]) -> Model:
    """The options of a data set, without the keys that concern the loader.

    Raises:
        DatasetError: listing every fault.
    """
    try:
        return model.model_validate(own_options(opt))
    except ValidationError as error:
        details = error.errors(include_url=False)
        faults = [": ".join([*map(str, detail["loc"]), detail["msg"]]) for detail in details]
        raise DatasetError([fault.replace("Value error, ", "") for fault in faults]) from None


def to_tensor(pixels: Pixels) -> Tensor:
    """[H, W, C] of any image dtype as a float32 tensor [C, H, W], white being 1."""
    return torch.from_numpy(np.ascontiguousarray(to_float(pixels).transpose(2, 0, 1)))


def to_pixels(image: Tensor) -> np.ndarray:
    """[1, C, H, W] or [C, H, W] float in [0, 1], RGB, to [H, W, C] uint8: clipped, rounded; NaN becomes 0."""
    image = image.detach().float().nan_to_num().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(image.reshape(image.shape[-3:]).permute(1, 2, 0).numpy())
