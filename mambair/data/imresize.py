"""MATLAB's bicubic ``imresize`` with antialiasing: how the low-resolution images of the published test sets were made.

Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5; MATLAB widens the
kernel by 1/scale when it shrinks. For integer images MATLAB rounds the picture between its two passes, and so does
this module; without that the published files are missed by up to 2 grey levels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DTYPES = ("uint8", "uint16", "float32", "float64")

# output rows that share one small matrix product: more rows waste multiplications by zero, fewer waste calls
_BLOCK = 16
# a sum that is a half but for the last bits is rounded up, whatever the order in which it was added
_TIE = 1e-9


def imresize(
    image: NDArray[np.generic],
    scale: float | tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
) -> NDArray[np.generic]:
    """Resize an image as MATLAB's ``imresize(image, scale, "bicubic")`` does.

    Args:
        image: [H, W] or [H, W, C], uint8, uint16, float32 or float64; floats have any range and are not clipped.
        scale: output over input, one number or (vertical, horizontal); the output is ceil(H * scale) x
            ceil(W * scale). Above 1 enlarges.
        size: (height, width) of the output, in place of ``scale``.

    Returns:
        The resized image: same dtype and number of axes as ``image``. Integers are rounded half up and clipped.

    Raises:
        ValueError: another dtype or number of axes, an empty image, both or neither of ``scale`` and ``size``, or
            one of them not positive.
    """
    if image.dtype.name not in DTYPES:
        raise ValueError(f"image: dtype must be one of {', '.join(DTYPES)}, got {image.dtype}; convert it first")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [H, W] or [H, W, C], got shape {image.shape}")
    scales, sizes = _target(image.shape[:2], scale, size)
    # MATLAB shrinks the axis with the smaller scale first; on a tie the rows
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        image = _resize_axis(image, axis, scales[axis], sizes[axis])
    return image


def _target(
    shape: tuple[int, ...], scale: float | tuple[float, float] | None, size: tuple[int, int] | None
) -> tuple[tuple[float, float], tuple[int, int]]:
    """(vertical, horizontal) scale and (height, width) of the output."""
    if (scale is None) == (size is None):
        raise ValueError(f"give exactly one of scale and size, got scale={scale} and size={size}")
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: must be two positive numbers (height, width), got {size}")
        return (size[0] / shape[0], size[1] / shape[1]), (int(size[0]), int(size[1]))
    vertical, horizontal = scale if isinstance(scale, tuple) else (scale, scale)
    if not (0 < vertical < math.inf and 0 < horizontal < math.inf):
        raise ValueError(f"scale: must be positive and finite, got {scale}")
    # 10 * 1.1 is 11.000000000000002: without the small step back its ceiling would be 12
    height = max(1, math.ceil(shape[0] * vertical - 1e-9))
    width = max(1, math.ceil(shape[1] * horizontal - 1e-9))
    return (float(vertical), float(horizontal)), (height, width)


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic kernel with a = -0.5; zero beyond 2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=64)
def contributions(in_length: int, out_length: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Which input pixels make up each output pixel of one axis, and with which weights.

    Returns:
        weights [out_length, taps], each row summing to 1, and the input indices [out_length, taps], reflected at the
        borders with the edge pixel repeated. Cached: do not write into them.
    """
    shrink = min(scale, 1.0)
    width = 4.0 / shrink
    taps = math.ceil(width) + 2
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)  # in input pixels, the first being 1
    left = np.floor(centre - width / 2)
    position = left[:, None] + np.arange(taps)
    weights = shrink * cubic(shrink * (centre[:, None] - position))
    weights /= weights.sum(axis=1, keepdims=True)
    indices = (position.astype(np.int64) - 1) % (2 * in_length)
    indices = np.where(indices < in_length, indices, 2 * in_length - 1 - indices)
    used = weights.any(axis=0)
    return weights[:, used], indices[:, used]


@lru_cache(maxsize=64)
def _blocks(in_length: int, out_length: int, scale: float) -> tuple[tuple[int, int, int, NDArray[np.float64]], ...]:
    """The resize of one axis as small dense matrices: (first output row, first input row, last + 1, [rows, inputs])."""
    weights, indices = contributions(in_length, out_length, scale)
    blocks = []
    for first in range(0, out_length, _BLOCK):
        rows = indices[first : first + _BLOCK]
        low, high = int(rows.min()), int(rows.max()) + 1
        matrix = np.zeros((len(rows), high - low))
        # several taps may fall on one input pixel where the border reflects
        np.add.at(matrix, (np.arange(len(rows))[:, None], rows - low), weights[first : first + _BLOCK])
        blocks.append((first, low, high, matrix))
    return tuple(blocks)


def _resize_axis(image: NDArray[np.generic], axis: int, scale: float, out_length: int) -> NDArray[np.generic]:
    """Resize one of the first two axes; integers are rounded and clipped at once, as MATLAB does."""
    image = np.moveaxis(image, axis, 0)
    rest = image.shape[1:]
    table = np.ascontiguousarray(image).reshape(image.shape[0], -1)  # [in_length, everything else]
    resized = np.empty((out_length, table.shape[1]), dtype=table.dtype)
    for first, low, high, matrix in _blocks(table.shape[0], out_length, scale):
        resized[first : first + len(matrix)] = _as_dtype(matrix @ table[low:high].astype(np.float64), table.dtype)
    return np.ascontiguousarray(np.moveaxis(resized.reshape(out_length, *rest), 0, axis))


def _as_dtype(values: NDArray[np.float64], dtype: np.dtype) -> NDArray[np.generic]:
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    values += 0.5 + _TIE
    np.clip(values, 0, np.iinfo(dtype).max, out=values)
    return values.astype(dtype)
