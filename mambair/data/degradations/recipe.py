"""Drawing the degradation of one sample: a plain list of steps, a function of the settings and a generator.

Order two follows Real-ESRGAN (Wang et al., 2021, figure 2). Everything is drawn per sample, where the published
training draws the sizes, modes and the order of the last steps once per batch and mixes batches in a pool afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from mambair.data.degradations.compression import Compression
from mambair.data.degradations.kernels import GaussianBlur, SincBlur
from mambair.data.degradations.noise import Noise
from mambair.data.degradations.pipeline import Step, Steps
from mambair.data.degradations.resize import Resize
from mambair.data.degradations.settings import SMALLEST_KERNEL, DegradationSettings

T = TypeVar("T")

# sinc kernels from this size on may have the lower cutoff
_LARGE_SINC = 13


class _Stage:
    """The settings of one stage by their names in the first: ``stage.jpeg_range`` is ``jpeg_range2`` in the second."""

    def __init__(self, settings: DegradationSettings, number: int) -> None:
        self._settings, self._suffix = settings, "" if number == 1 else str(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, f"{name}{self._suffix}")

    @property
    def blur_prob(self) -> float:
        return self._settings.second_blur_prob if self._suffix else self._settings.blur_prob


def draw_recipe(settings: DegradationSettings, height: int, width: int, scale: int, rng: np.random.Generator) -> Steps:
    """Draw the steps that turn a ground truth into an input ``scale`` times smaller.

    Args:
        settings: what to draw from.
        height, width: of the ground truth, at least ``scale``; those of the input are these ``// scale``.
        scale: >= 1.
        rng: the source of everything random.

    Returns:
        Steps for `degrade`; their number depends on ``settings.order`` alone.
    """
    first, second = _Stage(settings, 1), _Stage(settings, 2)
    small = height // scale, width // scale
    steps: list[Step | None] = [_blur(first, rng), _random_resize(settings, first, (height, width), rng)]
    if settings.order == 1:
        return (*steps, _last_resize(settings, small, rng), _noise(first, rng), *_end(settings, first, rng))
    steps += [_noise(first, rng), _compression(settings, first, rng)]
    steps += [_blur(second, rng), _random_resize(settings, second, small, rng, is_size=False), _noise(second, rng)]
    last, (sinc, compression) = _last_resize(settings, small, rng), _end(settings, second, rng)
    return (*steps, *((last, sinc, compression) if rng.random() < 0.5 else (compression, last, sinc)))


def described(recipe: Steps) -> str:
    """The steps of a sample as one line of text."""
    return "; ".join(str(step) for step in recipe if step is not None) or "clean"


def _end(
    settings: DegradationSettings, stage: _Stage, rng: np.random.Generator
) -> tuple[SincBlur | None, Compression | None]:
    is_filtered, size = rng.random() < settings.final_sinc_prob, _kernel_size(stage, rng)
    sinc = SincBlur(size, float(rng.uniform(math.pi / 3, math.pi)))
    return sinc if is_filtered else None, _compression(settings, stage, rng)


def _blur(stage: _Stage, rng: np.random.Generator) -> GaussianBlur | SincBlur | None:
    if rng.random() >= stage.blur_prob:
        return None
    size = _kernel_size(stage, rng)
    if rng.random() < stage.sinc_prob:
        return SincBlur(size, float(rng.uniform(math.pi / (3 if size < _LARGE_SINC else 5), math.pi)))
    kind = _chosen(stage.kernel_list, stage.kernel_prob, rng)
    sigma, angle = _uniform(stage.blur_sigma, rng), 0.0
    sigma_y, beta = sigma, 1.0
    if kind.endswith("aniso"):
        sigma_y, angle = _uniform(stage.blur_sigma, rng), float(rng.uniform(-math.pi, math.pi))
    if kind in ("iso", "aniso"):
        return GaussianBlur(kind, size, sigma, sigma_y, angle)
    low, high = stage.betag_range if kind.startswith("generalized") else stage.betap_range
    beta = _uniform((low, max(low, min(1.0, high))) if rng.random() < 0.5 else (min(high, max(1.0, low)), high), rng)
    return GaussianBlur(kind, size, sigma, sigma_y, angle, beta)


def _kernel_size(stage: _Stage, rng: np.random.Generator) -> int:
    return SMALLEST_KERNEL + 2 * int(rng.integers((stage.blur_kernel_size - SMALLEST_KERNEL) // 2 + 1))


def _random_resize(
    settings: DegradationSettings,
    stage: _Stage,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    is_size: bool = True,
) -> Resize | None:
    """Resizing to a factor of ``size``; no step where the image ``is_size`` already and keeps it."""
    low, high = stage.resize_range
    direction = _chosen(("up", "down", "keep"), stage.resize_prob, rng)
    factor = {"up": (1.0, max(high, 1.0)), "down": (min(low, 1.0), 1.0), "keep": (1.0, 1.0)}[direction]
    scaled, mode = _uniform(factor, rng), _chosen(settings.resize_mode_list, None, rng)
    if direction == "keep" and is_size:
        return None
    height, width = (max(1, int(length * scaled)) for length in size)
    return Resize(mode, height, width, settings.antialias)


def _last_resize(settings: DegradationSettings, size: tuple[int, int], rng: np.random.Generator) -> Resize:
    modes = settings.lq_resize_mode or settings.resize_mode_list
    return Resize(_chosen([modes] if isinstance(modes, str) else modes, None, rng), *size, settings.antialias)


def _noise(stage: _Stage, rng: np.random.Generator) -> Noise | None:
    if rng.random() >= stage.noise_prob:
        return None
    kind = "gaussian" if rng.random() < stage.gaussian_noise_prob else "poisson"
    amount = _uniform(stage.noise_range if kind == "gaussian" else stage.poisson_scale_range, rng)
    return Noise(kind, amount, bool(rng.random() < stage.gray_noise_prob), int(rng.integers(2**63)))


def _compression(settings: DegradationSettings, stage: _Stage, rng: np.random.Generator) -> Compression | None:
    if rng.random() >= stage.compress_prob:
        return None
    codec = _chosen(settings.codec_list, stage.codec_prob, rng)
    low, high = getattr(stage, f"{codec}_range")
    subsampling = _chosen(settings.subsampling_list, settings.subsampling_prob, rng)
    return Compression(codec, int(rng.integers(low, high + 1)), subsampling)


def _uniform(bounds: Sequence[float], rng: np.random.Generator) -> float:
    return float(rng.uniform(bounds[0], bounds[1]))


def _chosen(items: Sequence[T], weights: Sequence[float] | None, rng: np.random.Generator) -> T:
    """One of the items, by weights, or all equally likely."""
    sums = np.cumsum(weights if weights is not None else np.ones(len(items)))
    return items[int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))]
