"""PSNR and SSIM as the super-resolution papers and BasicSR report them.

SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 2004, equation 13, with the 11x11 Gaussian window of the authors' MATLAB code, valid region only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mambair.metrics.image_pairs import adapt_image, check_pair, peak_value
from mambair.registry import METRIC_REGISTRY

WINDOW = 11
SIGMA = 1.5
SSIM_WINDOW = f"{WINDOW}x{WINDOW} Gaussian window, sigma {SIGMA}, valid region"  # to state beside values
K1, K2 = 0.01, 0.03
MARGIN = WINDOW - 1  # the valid region is this much smaller than the image
TILE = 16  # rows or columns that one banded matrix product filters
BLOCK_ROWS, BLOCK_COLUMNS = 64, 256  # multiples of TILE; among the fastest with 1 MB of cache
MOST_THREADS = 4
WORTH_THREADS = 512 * 512  # pixels


@METRIC_REGISTRY.register()
def calculate_psnr(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    input_order: str = "HWC",
    test_y_channel: bool = False,
    *,
    data_range: float | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, over all channels together; infinity for equal images.

    Args:
        img, img2: [H, W], or [H, W, C] / [C, H, W] by ``input_order``, BGR order; uint8 or float in [0, 255], or
            uint16 in [0, 65535].
        crop_border: pixels left out at each edge.
        test_y_channel: measure the BT.601 luma of a three-channel image; without effect on other images.
        data_range: the largest possible value, where the dtype does not say it.

    Raises:
        TypeError: an image is no numpy array, or the border no integer.
        ValueError: shapes, dtypes or sizes that cannot be measured.
    """
    check_pair(img, img2, crop_border=crop_border, input_order=input_order, smallest=1)
    peak = peak_value(img, img2, data_range)
    convert = partial(
        adapt_image, crop_border=crop_border, input_order=input_order, test_y_channel=test_y_channel, peak=peak
    )
    first, second = _both(convert, img, img2)
    mean_squared = float(np.mean(np.square(np.subtract(first, second, dtype=np.float64))))
    if mean_squared == 0.0:
        return math.inf
    return 10.0 * math.log10(peak * peak / mean_squared)


@METRIC_REGISTRY.register()
def calculate_ssim(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    input_order: str = "HWC",
    test_y_channel: bool = False,
    *,
    data_range: float | None = None,
) -> float:
    """Structural similarity, averaged over the valid region and then over channels; 1 for equal images.

    Args and raises as :func:`calculate_psnr`; at least 11x11 pixels must be left after the crop.
    """
    check_pair(img, img2, crop_border=crop_border, input_order=input_order, smallest=WINDOW)
    peak = peak_value(img, img2, data_range)
    convert = partial(
        adapt_image, crop_border=crop_border, input_order=input_order, test_y_channel=test_y_channel, peak=peak
    )
    first, second = _both(convert, img, img2)
    return float(np.mean(_ssim_of_planes(first, second, peak)))


def _both(
    convert: Callable[[np.ndarray], np.ndarray], img: np.ndarray, img2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``convert`` of two images, at the same time where they are large."""
    if img.size < WORTH_THREADS or (os.cpu_count() or 1) == 1:
        return convert(img), convert(img2)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(convert, img2)
        return convert(img), other.result()


def _ssim_of_planes(first: np.ndarray, second: np.ndarray, peak: float) -> list[float]:
    """Mean SSIM of each pair of planes [C, H, W] of any dtype, in float64; the same bits for any number of threads."""
    planes, rows, columns = first.shape[0], first.shape[1] - MARGIN, first.shape[2] - MARGIN
    work = [(plane, row) for plane in range(planes) for row in range(0, rows, BLOCK_ROWS)]
    workers = min(MOST_THREADS, os.cpu_count() or 1, len(work)) if first[0].size >= WORTH_THREADS else 1
    if workers == 1:
        sums = _sums_of_block_rows(first, second, peak, work)
    else:
        share = -(-len(work) // workers)
        parts = [work[start : start + share] for start in range(0, len(work), share)]
        with ThreadPoolExecutor(workers) as pool:
            done = pool.map(partial(_sums_of_block_rows, first, second, peak), parts)
            sums = [value for part in done for value in part]
    each = len(work) // planes
    return [sum(sums[start : start + each]) / (rows * columns) for start in range(0, len(work), each)]


def _sums_of_block_rows(
    first: np.ndarray, second: np.ndarray, peak: float, work: Sequence[tuple[int, int]]
) -> list[float]:
    """Sum of the SSIM map over each row of blocks, given by its plane and its first row."""
    rows, columns = first.shape[1] - MARGIN, first.shape[2] - MARGIN
    blocks = _BlockSimilarity(peak)
    sums = []
    for plane, row in work:
        total = 0.0
        for column in range(0, columns, BLOCK_COLUMNS):
            part = np.s_[plane, row : row + BLOCK_ROWS + MARGIN, column : column + BLOCK_COLUMNS + MARGIN]
            total += float(blocks(first[part], second[part])[: rows - row, : columns - column].sum())
        sums.append(total)
    return sums


class _BlockSimilarity:
    """The SSIM map of one block at a time, in working memory that is allocated once and fits into the cache.

    With u = x + y and v = x - y, means U, V and variances A, B of both under the window, equation 13 becomes
    (U^2 - V^2 + 2 c1) (A - B + 2 c2) / ((U^2 + V^2 + 2 c1) (A + B + 2 c2)): fewer steps, and exactly 1 for x = y.

    The Gaussian is separable, and each pass is a product with a banded matrix that yields TILE outputs from TILE + 10
    inputs: more multiplications than a loop over the window's taps, but all of them in BLAS.
    """

    def __init__(self, peak: float) -> None:
        self._c1, self._c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
        self._band = _gaussian_band()
        self._band_transposed = np.ascontiguousarray(self._band.T)
        self._moments = np.zeros((4, BLOCK_ROWS + MARGIN, BLOCK_COLUMNS + MARGIN))  # u, v, u^2, v^2
        self._row_windows = sliding_window_view(self._moments, TILE + MARGIN, axis=1)[:, ::TILE].swapaxes(2, 3)
        self._vertical = np.empty((4, BLOCK_ROWS // TILE, TILE, BLOCK_COLUMNS + MARGIN))
        rows_of_planes = self._vertical.reshape(4 * BLOCK_ROWS, BLOCK_COLUMNS + MARGIN)
        self._column_windows = sliding_window_view(rows_of_planes, TILE + MARGIN, axis=1)[:, ::TILE].swapaxes(0, 1)
        self._filtered = np.empty((4, BLOCK_ROWS, BLOCK_COLUMNS))
        self._filtered_tiles = self._filtered.reshape(4 * BLOCK_ROWS, BLOCK_COLUMNS // TILE, TILE).swapaxes(0, 1)
        self._scratch = np.empty((2, BLOCK_ROWS, BLOCK_COLUMNS))

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """SSIM map [BLOCK_ROWS, BLOCK_COLUMNS], valid for as many rows and columns as x and y have beyond 10."""
        height, width = x.shape
        u, v, u_squared, v_squared = self._moments[:, :height, :width]
        np.add(x, y, out=u, dtype=np.float64)
        np.subtract(x, y, out=v, dtype=np.float64)
        np.square(u, out=u_squared)
        np.square(v, out=v_squared)
        # beyond the block's own pixels the memory holds older, finite values, which reach no valid output
        np.matmul(self._band, self._row_windows, out=self._vertical)
        np.matmul(self._column_windows, self._band_transposed, out=self._filtered_tiles)
        return self._similarity()

    def _similarity(self) -> np.ndarray:
        mean_u, mean_v, variance_u, variance_v = self._filtered
        numerator, denominator = self._scratch
        np.square(mean_u, out=mean_u)
        np.square(mean_v, out=mean_v)
        variance_u -= mean_u
        variance_v -= mean_v
        mean_u += 2 * self._c1
        variance_u += 2 * self._c2
        np.subtract(mean_u, mean_v, out=numerator)
        np.add(mean_u, mean_v, out=denominator)
        numerator *= np.subtract(variance_u, variance_v, out=mean_u)
        denominator *= np.add(variance_u, variance_v, out=mean_v)
        return np.divide(numerator, denominator, out=numerator)


def _gaussian_band() -> np.ndarray:
    """Matrix [TILE, TILE + 10]: row i holds the normalised window's 11 taps from column i on."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * SIGMA**2))
    taps /= taps.sum()
    band = np.zeros((TILE, TILE + MARGIN))
    for row in range(TILE):
        band[row, row : row + WINDOW] = taps
    return band
