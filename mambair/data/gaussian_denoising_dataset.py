"""Gaussian denoising: clean images, and white noise added in memory."""

from __future__ import annotations

import numpy as np

from mambair.data.dataset_options import GaussianDenoisingOptions
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.images.lazy_image import to_float
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class GaussianDenoisingDataset(RestorationDataset):
    """Images of ``dataroot_gt`` and the same with N(0, sigma / 255) added, neither clipped nor rounded.

    In phases ``val`` and ``test`` every image gets the noise of the published protocol: NumPy's legacy generator is
    seeded afresh for each image and fills it in BGR order, in float64.
    """

    Options = GaussianDenoisingOptions

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        path = self.gt_paths[index]
        picture = self._picture(path)
        if self.options.is_train:
            top, left, side = self._corner(picture.height, picture.width, path, rng, gt_size)
            gt = picture.patch(top, left, side, side)
            gt, _ = self._flipped((gt, gt), rng)
            clean = to_float(gt)
            noisy = clean + rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(self._sigma(rng) / 255)
        else:
            clean = to_float(picture.whole())
            noise = np.random.RandomState(self.options.noise_seed).normal(0, self.options.sigma / 255.0, clean.shape)
            noisy = (clean + noise[:, :, ::-1]).astype(np.float32)
        return {"lq": to_tensor(noisy), "gt": to_tensor(clean), "lq_path": str(path), "gt_path": str(path)}

    def _sigma(self, rng: np.random.Generator) -> float:
        sigma = self.options.sigma
        return float(rng.uniform(sigma[0], sigma[-1])) if isinstance(sigma, list) else float(sigma)
