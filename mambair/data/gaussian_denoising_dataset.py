"""Gaussian denoising: clean images, and white noise added in memory."""

from __future__ import annotations

import numpy as np

from mambair.data.dataset_options import GaussianDenoisingOptions
from mambair.data.restoration_dataset import RestorationDataset, Sample, to_tensor
from mambair.images.lazy_image import to_float, to_uint8
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class GaussianDenoisingDataset(RestorationDataset):
    """Images of ``dataroot_gt`` and the same with N(0, sigma / 255) added, clipped and rounded only if asked to.

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
            sigma = self._sigma(rng)
            noisy = clean + rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(sigma / 255)
        else:
            clean = to_float(picture.whole())
            sigma = self.options.sigma
            noise = np.random.RandomState(self.options.noise_seed).normal(0, sigma / 255.0, clean.shape)
            noisy = (clean + noise[:, :, ::-1]).astype(np.float32)
        chance = self.options.clip_probability
        is_clipped = chance == 1 or (chance > 0 and rng.random() < chance)
        sample: Sample = {"lq": to_tensor(to_uint8(noisy) if is_clipped else noisy), "gt": to_tensor(clean)}
        sample |= {"lq_path": str(path), "gt_path": str(path)}
        return sample | {"degradation": f"gaussian noise sigma {sigma:.2f}{' in 8 bits' if is_clipped else ''}"}

    def _sigma(self, rng: np.random.Generator) -> float:
        sigma = self.options.sigma
        return float(rng.uniform(sigma[0], sigma[-1])) if isinstance(sigma, list) else float(sigma)
