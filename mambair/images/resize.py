"""MATLAB's bicubic ``imresize`` with antialiasing: how the low-resolution images of the published test sets were made.

Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5; MATLAB widens the
kernel by 1/scale when it shrinks. For integer images MATLAB rounds the picture between its two passes, and so does
this module; without that the published files are missed by up to 2 grey levels.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mambair.system.tensor_cache import is_traced

DTYPES = ("uint8", "uint16", "float32", "float64")

# output pixels that share one product: more waste multiplications by zero, fewer waste calls
_BLOCK = 16
# output rows that go through both passes together, times the bytes of a number: bounds the memory between the passes
_STRIP = 2048
# so much memory is kept for the next call, in each thread
_KEPT_BYTES = 2**25
# bound of the error of a float32 sum of 8-bit values, per tap
_SINGLE_ERROR = 2e-5
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
        RuntimeError: it is called while torch traces a network.
    """
    if image.dtype.name not in DTYPES:
        raise ValueError(f"image: dtype must be one of {', '.join(DTYPES)}, got {image.dtype}; convert it first")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [H, W] or [H, W, C], got shape {image.shape}")
    scales, sizes = _target(image.shape[:2], scale, size)
    pixels = image if image.ndim == 3 else image[:, :, None]
    # MATLAB shrinks the axis with the smaller scale first; on a tie the rows
    if scales[0] <= scales[1]:
        resized = _resize(pixels, scales, sizes)
    else:
        resized = _resize(pixels.transpose(1, 0, 2), scales[::-1], sizes[::-1]).transpose(1, 0, 2)
    return np.ascontiguousarray(resized if image.ndim == 3 else resized[:, :, 0])


class _Block(NamedTuple):
    """Output pixels ``first`` to ``last`` as a product of the input pixels ``low`` to ``high``.

    Attributes:
        matrix: [(last - first) * C, (high - low) * C] for C interleaved channels.
        transposed: the same, transposed, contiguous.
    """

    first: int
    last: int
    low: int
    high: int
    matrix: Tensor
    transposed: Tensor


class _Plan(NamedTuple):
    """The resize of one axis.

    Attributes:
        weights, indices: as ``contributions`` gives them.
        blocks: the same as small dense matrices.
        tie: added before rounding, so that sums that are exactly a half go up although float32 may have them a little
            lower; None if only float64 can tell such sums from others.
    """

    weights: NDArray[np.float64]
    indices: NDArray[np.int64]
    blocks: tuple[_Block, ...]
    tie: float | None


class _Workspace(threading.local):
    """Memory of one thread that every call uses again: fresh pages would take longer than the products."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8, device="cpu")

    def tables(self, shapes: Sequence[tuple[int, int]], dtype: torch.dtype) -> list[Tensor]:
        """Tables of these shapes, holding whatever the call before left there."""
        sizes = [-(-rows * columns * dtype.itemsize // 64) * 64 for rows, columns in shapes]
        memory = self._bytes
        if len(memory) < sum(sizes):
            memory = torch.empty(sum(sizes), dtype=torch.uint8, device="cpu")
            if len(memory) <= _KEPT_BYTES:
                self._bytes = memory
        parts = memory[: sum(sizes)].split(sizes)
        return [
            part[: rows * columns * dtype.itemsize].view(dtype).view(rows, columns)
            for part, (rows, columns) in zip(parts, shapes, strict=True)
        ]


_workspace = _Workspace()


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
def _plan(in_length: int, out_length: int, scale: float, dtype: str, channels: int) -> _Plan:
    """The products, in ``dtype``, that resize one axis, whose pixels are ``channels`` interleaved numbers."""
    weights, indices = contributions(in_length, out_length, scale)
    blocks = []
    for first in range(0, out_length, _BLOCK):
        rows = indices[first : first + _BLOCK]
        low, high = int(rows.min()), int(rows.max()) + 1
        taps = np.zeros((len(rows), high - low))
        # several taps may fall on one input pixel where the border reflects
        np.add.at(taps, (np.arange(len(rows))[:, None], rows - low), weights[first : first + _BLOCK])
        matrix = torch.from_numpy(np.kron(taps, np.eye(channels)).astype(dtype))
        blocks.append(_Block(first, first + len(rows), low, high, matrix, matrix.T.contiguous()))
    return _Plan(weights, indices, tuple(blocks), _tie(weights, scale) if dtype == "float32" else _TIE)


def _tie(weights: NDArray[np.float64], scale: float) -> float | None:
    """Half the distance of two possible sums of 8-bit values, if float32 sums are exact or surely nearer than that.

    For whole factors the weights, and so the sums, are multiples of a fraction that is not too small.
    """
    factor = round(max(scale, 1 / scale))
    error = _SINGLE_ERROR * weights.shape[1]
    for denominator in (2 * factor**4, 16 * factor**4):
        multiples = weights * denominator
        # 330: 255 times what the negative weights make the sum grow by
        is_exact = denominator & (denominator - 1) == 0 and 330 * denominator < 2**24
        if np.abs(multiples - np.rint(multiples)).max() < 1e-6 and (is_exact or error < 0.5 / denominator):
            return 0.5 / denominator
    return None


class _Passes:
    """Both passes over an image, rows first, one strip of the output at a time.

    Args:
        shape: (height, width, channels) of the input.
        dtype: of input and output.
        scales, sizes: (vertical, horizontal), as ``_target`` gives them.

    Attributes:
        strips: the blocks of output rows that go through both passes together.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[np.generic],
        scales: tuple[float, float],
        sizes: tuple[int, int],
    ) -> None:
        height, width, channels = shape
        self._white = np.iinfo(dtype).max if dtype.kind == "u" else None
        # unless a user has allowed less exact products (torch.set_float32_matmul_precision)
        is_exact = torch.get_float32_matmul_precision() == "highest"
        working = np.dtype(np.float32 if dtype == np.uint8 and is_exact else np.float64)
        self._down = _plan(height, sizes[0], scales[0], working.name, 1)
        self._across = _plan(width, sizes[1], scales[1], working.name, channels)
        self._channels = channels
        blocks = self._down.blocks
        per_strip = _STRIP // working.itemsize // _BLOCK
        self.strips = [blocks[number : number + per_strip] for number in range(0, len(blocks), per_strip)]
        rows = min(per_strip * _BLOCK, sizes[0])
        tallest = max(block.high - block.low for block in blocks)
        shapes = ((tallest, width * channels), (rows, width * channels), (rows, sizes[1] * channels))
        self._inputs, self._sums, self._results = _workspace.tables(shapes, blocks[0].matrix.dtype)

    def write(
        self, strip: tuple[_Block, ...], table: NDArray[np.generic], above: int, output: NDArray[np.generic]
    ) -> None:
        """Compute one of ``strips``.

        Args:
            strip: its blocks.
            table: [rows, W * C], writeable: the input without its first ``above`` rows, as far as it is needed.
            above: so many.
            output: [rows of the strip, out_W * C], to be written.
        """
        middle, result = self._sums[: len(output)], self._results[: len(output)]
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            self._write_rows(strip, table, above, middle)
            for block in self._across.blocks:
                columns = result[:, block.first * self._channels : block.last * self._channels]
                part = middle[:, block.low * self._channels : block.high * self._channels]
                torch.mm(part, block.transposed, out=columns)
            if self._across.tie is None:
                _settle_ties_across(result.numpy(), middle.numpy(), self._across, self._channels)
            _round(result, self._white, self._across.tie)
            torch.from_numpy(output).copy_(result)

    def _write_rows(self, strip: tuple[_Block, ...], table: NDArray[np.generic], above: int, middle: Tensor) -> None:
        """Compute the vertical pass of one strip, rounded as MATLAB rounds it, in ``middle``."""
        source, start = torch.from_numpy(table), strip[0].first
        for block in strip:
            part, rows = self._inputs[: block.high - block.low], middle[block.first - start : block.last - start]
            torch.mm(block.matrix, part.copy_(source[block.low - above : block.high - above]), out=rows)
            if self._down.tie is None:
                _settle_ties_down(rows.numpy(), table, self._down, block.first, above)
            _round(rows, self._white, self._down.tie)


def _resize(image: NDArray[np.generic], scales: tuple[float, float], sizes: tuple[int, int]) -> NDArray[np.generic]:
    """Resize [H, W, C], rows first."""
    height, width, channels = image.shape
    if is_traced():  # nothing would write into the result, nor into what is kept for the next image
        raise RuntimeError("imresize: computes with values, and cannot be traced (torch.export, FakeTensorMode)")
    passes = _Passes((height, width, channels), image.dtype, scales, sizes)
    image = np.ascontiguousarray(image)
    table = (image if image.flags.writeable else image.copy()).reshape(height, width * channels)
    resized = np.empty((sizes[0], sizes[1] * channels), dtype=image.dtype)
    for strip in passes.strips:
        passes.write(strip, table, 0, resized[strip[0].first : strip[-1].last])
    return resized.reshape(sizes[0], sizes[1], channels)


def resized_strips(
    strips: Iterable[NDArray[np.generic]], height: int, size: tuple[int, int]
) -> Iterator[NDArray[np.generic]]:
    """Resize an image that comes in strips of rows, in memory that does not grow with its height.

    Args:
        strips: [N, W, C] each, from top to bottom; dtypes as for :func:`imresize`.
        height: rows of all of them together.
        size: (height, width) of the output.

    Yields:
        Strips of ``imresize(whole image, size=size)``, from top to bottom.
    """
    iterator = iter(strips)
    first = next(iterator)
    scales, sizes = _target((height, first.shape[1]), None, size)
    narrowed = itertools.chain([first], iterator)
    if scales[0] > scales[1]:  # columns first, as in `imresize`; then the second pass leaves them as they are
        narrowed = (imresize(strip, size=(len(strip), sizes[1])) for strip in narrowed)
        scales = (scales[0], 1.0)
    width, channels = (first.shape[1] if scales[1] != 1.0 else sizes[1]), first.shape[2]
    passes = _Passes((height, width, channels), first.dtype, scales, sizes)
    lowest = [min(block.low for block in strip) for strip in passes.strips]
    needed = list(itertools.accumulate(reversed(lowest), min))[::-1]  # no later strip reads above
    rows = np.empty((0, width * channels), dtype=first.dtype)
    above = 0
    for strip, low in zip(passes.strips, needed, strict=True):
        high = max(block.high for block in strip)
        parts, end = [rows[low - above :]], above + len(rows)
        while end < high:
            parts.append(next(narrowed).reshape(-1, width * channels))
            end += len(parts[-1])
        rows, above = np.concatenate(parts), low
        output = np.empty((strip[-1].last - strip[0].first, sizes[1] * channels), dtype=first.dtype)
        passes.write(strip, rows, above, output)
        yield output.reshape(len(output), sizes[1], channels)


def _round(values: Tensor, white: int | None, tie: float | None) -> None:
    """Round and clip sums in place as MATLAB stores integers; nothing happens to those of floats (no ``white``)."""
    if white is not None:
        values.add_(0.5 + (tie or 0.0)).floor_().clamp_(0, white)


def _near_ties(values: NDArray[np.float32], plan: _Plan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the sums that are so near a half that float32 may round them to the wrong side."""
    distance = np.rint(values)
    np.subtract(values, distance, out=distance)
    np.abs(distance, out=distance)
    # on flat indices, as nonzero() of two axes is much slower
    flat = np.flatnonzero(distance > 0.5 - _SINGLE_ERROR * plan.weights.shape[1])
    return np.divmod(flat, values.shape[1])


def _settle_ties_down(
    values: NDArray[np.float32], table: NDArray[np.generic], plan: _Plan, first: int, above: int
) -> None:
    """Compute near ties of the vertical pass in float64, in place.

    Args:
        values: [rows, W * C], output rows ``first`` and on.
        table: [.., W * C], what they were made of, from input row ``above`` on.
    """
    rows, columns = _near_ties(values, plan)
    taps = table[plan.indices[first + rows] - above, columns[:, None]]
    values[rows, columns] = np.floor((plan.weights[first + rows] * taps).sum(axis=1) + 0.5 + _TIE)


def _settle_ties_across(values: NDArray[np.float32], table: NDArray[np.floating], plan: _Plan, channels: int) -> None:
    """Compute near ties of the horizontal pass in float64, in place: [rows, out_W * C] made of [rows, W * C]."""
    rows, columns = _near_ties(values, plan)
    pixels, channel = np.divmod(columns, channels)
    taps = table[rows[:, None], plan.indices[pixels] * channels + channel[:, None]]
    values[rows, columns] = np.floor((plan.weights[pixels] * taps).sum(axis=1) + 0.5 + _TIE)
