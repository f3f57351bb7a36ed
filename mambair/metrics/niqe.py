"""NIQE (Mittal, Soundararajan, Bovik, IEEE Signal Processing Letters 2013): quality of an image without ground truth.

An image is cut into blocks; 36 numbers describe the statistics of each, and NIQE is the distance of their distribution
from that of pristine photographs. The parameters of the latter, ``niqe.safetensors``, are fitted by this project
(``scripts/fit_niqe.py``) and not those of the paper's authors: values compare with each other, not with printed ones.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mambair.metrics.image_pairs import adapt_image, check_pair, peak_value
from mambair.registry import METRIC_REGISTRY

Array = NDArray[np.float64]

PARAMETERS = Path(__file__).with_name("niqe.safetensors")
NIQE_FIT = "parameters fitted by this project"
BLOCK = 96
SCALES = 2  # the image, and the image at half its size
WINDOW = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)  # 7 taps, sigma 7/6
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.0, 0.001)  # of the generalised Gaussian
GREY_OF_BGR = np.array((0.114, 0.587, 0.299))


@METRIC_REGISTRY.register()
def calculate_niqe(
    img: np.ndarray, crop_border: int, input_order: str = "HWC", convert_to: Literal["y", "gray"] = "y"
) -> float:
    """NIQE with this project's parameters; lower is better. It needs no ground truth.

    Args:
        img, crop_border, input_order: as of `calculate_psnr`.
        convert_to: what a colour image is measured on: "y", the luma of BT.601 in [16, 235], or "gray", full range.

    Raises:
        TypeError, ValueError: an image that cannot be measured; two blocks of 96 x 96 pixels are needed.
    """
    check_pair(img, img, crop_border=crop_border, input_order=input_order, smallest=BLOCK)
    if convert_to not in ("y", "gray"):
        raise ValueError(f"convert_to: must be 'y' or 'gray', found {convert_to!r}")
    peak = peak_value(img, img, None)
    is_luma = convert_to == "y"
    planes = adapt_image(img, crop_border=crop_border, input_order=input_order, test_y_channel=is_luma, peak=peak)
    plane = planes[0] if len(planes) == 1 else np.tensordot(GREY_OF_BGR, planes, 1)
    features = block_features(np.round(plane.astype(np.float64) * (255 / peak)))[0]
    if len(features) < 2:
        size = f"{plane.shape[0]}x{plane.shape[1]}"
        raise ValueError(f"img: NIQE needs two blocks of {BLOCK}x{BLOCK} pixels, found {size} pixels after cropping")
    return distance(gaussian_of(features), _pristine())


calculate_niqe.better = "lower"


def block_features(plane: Array) -> tuple[Array, Array]:
    """Features [N, 36] and sharpness [N] of the N whole blocks of a grey image [H, W], 0..255."""
    from mambair.images.resize import imresize

    rows, columns = (side // BLOCK for side in plane.shape)
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    parts, sharpness = [], np.zeros(rows * columns)
    for scale in range(SCALES):
        side = BLOCK >> scale
        normalised, deviation = normalise(plane)
        blocks = _blocks(normalised, side)
        parts += [asymmetric_fit(blocks.reshape(len(blocks), -1))[:, :2]]
        for shift in NEIGHBOURS:
            products = blocks * np.roll(blocks, shift, axis=(1, 2))
            parts.append(asymmetric_fit(products.reshape(len(blocks), -1))[:, [0, 2, 3, 4]])
        if scale == 0:
            sharpness = _blocks(deviation, side).mean(axis=(1, 2))
            plane = np.asarray(imresize(plane, 0.5), dtype=np.float64)
    return np.concatenate(parts, axis=1), sharpness


def normalise(plane: Array) -> tuple[Array, Array]:
    """The image less its local mean over its local deviation plus one, and that deviation; both [H, W]."""
    mean = _smooth(plane)
    deviation = np.sqrt(np.abs(_smooth(plane * plane) - mean * mean))
    return (plane - mean) / (deviation + 1), deviation


def asymmetric_fit(samples: Array) -> Array:
    """Fit an asymmetric generalised Gaussian of mode 0 by its moments (Lasmar et al., 2009).

    Args:
        samples: [N, K], K samples of each of N distributions.

    Returns:
        [N, 5]: shape, mean of both scales, mean of the distribution, scale to the left, scale to the right.
    """
    squares, left_side, right_side = samples**2, samples < 0, samples > 0
    left = np.sqrt((squares * left_side).sum(1) / np.maximum(left_side.sum(1), 1))
    right = np.sqrt((squares * right_side).sum(1) / np.maximum(right_side.sum(1), 1))
    skew = left / np.maximum(right, 1e-12)
    ratio = np.abs(samples).mean(1) ** 2 / np.maximum(squares.mean(1), 1e-24)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    ratios, to_scale, to_mean = _tables()
    shape = np.interp(ratio, ratios, SHAPES)
    left, right = (side * np.interp(shape, SHAPES, to_scale) for side in (left, right))
    mean = (right - left) * np.interp(shape, SHAPES, to_mean)
    return np.stack((shape, (left + right) / 2, mean, left, right), axis=1)


def gaussian_of(features: Array) -> tuple[Array, Array]:
    """Mean [36] and covariance [36, 36] of features [N, 36], N above 1."""
    return features.mean(axis=0), np.cov(features, rowvar=False)


def distance(first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
    """Distance of two Gaussians, each mean and covariance: of the means, in units of the mean covariance."""
    gap = first[0] - second[0]
    return float(np.sqrt(gap @ np.linalg.pinv((first[1] + second[1]) / 2) @ gap))


@lru_cache(maxsize=1)
def _tables() -> tuple[Array, Array, Array]:
    """For each of ``SHAPES``: E|x|^2 / E x^2, scale over standard deviation, mean over the difference of scales."""
    one, two, three = (np.array([math.lgamma(order / shape) for shape in SHAPES]) for order in (1, 2, 3))
    return np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)


@lru_cache(maxsize=1)
def _pristine() -> tuple[Array, Array]:
    from safetensors.numpy import load_file

    parameters = load_file(PARAMETERS)
    return parameters["mean"], parameters["covariance"]


def _blocks(plane: Array, side: int) -> Array:
    """[N, side, side] of an image whose sides are multiples of ``side``."""
    height, width = plane.shape
    blocks = plane.reshape(height // side, side, width // side, side)
    return blocks.swapaxes(1, 2).reshape(-1, side, side)


def _smooth(plane: Array) -> Array:
    """A Gaussian mean over 7 x 7 pixels; the border is repeated outward."""
    weights = WINDOW / WINDOW.sum()
    for _ in range(2):
        padded = np.pad(plane, ((3, 3), (0, 0)), mode="edge")
        plane = np.sum([weight * padded[i : i + len(plane)] for i, weight in enumerate(weights)], axis=0).T
    return plane
