"""What all data sets of this project share: decoding, caching, aligned patches, flips, and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import Dataset

from mambair.data.dataset_options import DatasetOptions, own_options
from mambair.data.image_files import ImageFileError, read_image, read_size
from mambair.data.image_folders import DatasetError, ground_truth_images

Pixels = NDArray[np.generic]
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

    Options: ClassVar[type[DatasetOptions]] = DatasetOptions

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options = self._validated(opt)
        self.gt_paths: list[Path] = []
        self._find_files()
        self._cache: dict[Path, Pixels] = {}
        self._cache_room = {True: float("inf"), False: 0, None: AUTOMATIC_CACHE_BYTES}[self.options.cache]

    @classmethod
    def _validated(cls, opt: dict[str, Any]) -> Any:
        try:
            return cls.Options.model_validate(own_options(opt))
        except ValidationError as error:
            details = error.errors(include_url=False)
            faults = [": ".join([*map(str, detail["loc"]), detail["msg"]]) for detail in details]
            raise DatasetError([fault.replace("Value error, ", "") for fault in faults]) from None

    @classmethod
    def check(cls, opt: dict[str, Any]) -> list[str]:
        """Faults of the options and the folders they name, as ``key: what is wrong``; empty if there are none.

        Cheap: folders are listed, the headers of a few images are read, and no pixel is decoded.
        """
        try:
            dataset = cls(opt)
        except DatasetError as error:
            return error.faults
        step = max(1, len(dataset) // HEADERS_CHECKED)
        faults = [dataset._fault_of_sizes(index) for index in range(0, len(dataset), step)]
        return [fault for fault in faults if fault][:1]

    def _fault_of_sizes(self, index: int) -> str | None:
        """What is wrong with the sizes of image ``index``, judged by the headers; subclasses extend it."""
        path, side = self.gt_paths[index], self.options.gt_size
        try:
            height, width = read_size(path)
        except ImageFileError as error:
            return f"dataroot_gt: {error}"
        if self.options.is_train and min(height, width) < side:
            return f"gt_size: {path} has {height} x {width} pixels, too few for patches of {side}"
        return None

    def _find_files(self) -> None:
        """List the files; subclasses with more folders extend it."""
        self.gt_paths = ground_truth_images(self.options.dataroot_gt, self.options.meta_info_file)

    def __len__(self) -> int:
        return len(self.gt_paths)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``. In phase ``train`` it is a different patch at every call; ``sample`` gives control."""
        return self.sample(index, np.random.default_rng() if self.options.is_train else np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample, a pure function of its arguments.

        Args:
            index: number of the image, below ``len(self)``.
            rng: the source of everything random.

        Returns:
            ``lq`` [C, h, w] and ``gt`` [C, h * scale, w * scale], float32 RGB (or one channel) in [0, 1], and their
            files ``lq_path`` and ``gt_path``.

        Raises:
            ImageFileError: an image cannot be read.
            DatasetError: an image is smaller than the patch, or the sizes of a pair do not fit.
        """
        raise NotImplementedError

    def _read(self, path: Path) -> Pixels:
        """Pixels [H, W, C] in the channels the options ask for, kept in memory while there is room."""
        pixels = self._cache.get(path)
        if pixels is None:
            pixels = in_color(read_image(path).pixels, self.options.color)
            if pixels.nbytes <= self._cache_room:
                self._cache_room -= pixels.nbytes
                self._cache[path] = pixels
        return pixels

    def _corner(self, height: int, width: int, path: Path, rng: np.random.Generator) -> tuple[int, int, int]:
        """Row, column and side of a random patch, in low-quality pixels.

        Args:
            height, width: of the low-quality image.
        """
        scale = self.options.scale
        side = self.options.gt_size // scale
        if min(height, width) < side:
            raise DatasetError(
                f"{path}: {height * scale} x {width * scale} pixels are too few for patches of gt_size "
                f"{self.options.gt_size}; take the image out or choose a gt_size up to {min(height, width) * scale}"
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


def in_color(pixels: Pixels, color: str) -> Pixels:
    """[H, W, 1 or 3] as ``rgb``, ``gray`` or ``y``; same dtype, integers rounded.

    ``gray`` is the full-range luma of BT.601 and keeps grey files as they are; ``y`` is its studio-range form, which
    BasicSR's ``color: y`` and the published metrics use.
    """
    if color == "rgb":
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    if color == "gray" and pixels.shape[2] == 1:
        return pixels
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float64)
    if color == "gray":
        luma = colour @ [0.299, 0.587, 0.114]
    else:
        luma = (colour @ [65.481, 128.553, 24.966] + 16 * white) / 255
    luma = luma[:, :, None]
    return (np.floor(luma + 0.5) if pixels.dtype.kind == "u" else luma).astype(pixels.dtype)


def to_float(pixels: Pixels) -> NDArray[np.float32]:
    """[H, W, C] of any image dtype as float32, white being 1."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def to_tensor(pixels: Pixels) -> Tensor:
    """[H, W, C] of any image dtype as a float32 tensor [C, H, W], white being 1."""
    return torch.from_numpy(np.ascontiguousarray(to_float(pixels).transpose(2, 0, 1)))
