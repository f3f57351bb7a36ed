"""Images without ground truth, as BasicSR's data set of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from mambair.data.dataset_options import SingleImageOptions
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class SingleImageDataset(RestorationDataset):
    """The images of ``dataroot_lq``, whole; for validation and tests by metrics that need no ground truth."""

    Options = SingleImageOptions
    has_ground_truth: ClassVar[bool] = False

    def _find_files(self) -> None:
        source = self._source("dataroot_lq")
        if self.options.meta_info_file is not None:
            source.select(self.options.meta_info_file)
        self.lq_paths: list[Path] = source.paths

    def __len__(self) -> int:
        return len(self.lq_paths)

    def sizes(self) -> dict[int, tuple[int, int]]:
        """{number: (height, width)} by the headers; without images that cannot be read."""
        return self._sizes_in("dataroot_lq", self.lq_paths)

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        """``lq`` [C, h, w], float32 RGB (or one channel) in [0, 1], and ``lq_path``.

        Raises:
            ImageFileError: the image cannot be read.
        """
        path = self.lq_paths[index]
        return {"lq": to_tensor(self._picture(path, "dataroot_lq").whole()), "lq_path": str(path)}

    def _fault_of_sizes(self, index: int) -> str | None:
        return self._fault_of_header("dataroot_lq", self.lq_paths[index])
