"""Alpha: what a network may see under transparent pixels, and how alpha itself is enlarged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mambair.images.resize import imresize

# MATLAB's bicubic reads two pixels to each side when it enlarges; the rest is margin
_HALO = 4
_BAND = 512  # rows at a time; even


def fill_transparent(colour: NDArray[np.generic], alpha: NDArray[np.generic]) -> NDArray[np.generic]:
    """Replace the colour of fully transparent pixels by that of the nearest visible ones, at ever coarser levels.

    Editors leave anything there, mostly black, and a network would draw it into the visible edge.

    Args:
        colour: [H, W, C], any real dtype; not written to.
        alpha: [H, W]; 0 is transparent.

    Returns:
        [H, W, C] of the same dtype; ``colour`` itself if all or none of the pixels are transparent.
    """
    visible = alpha.astype(bool)
    if visible.all() or not visible.any():
        return colour
    # the finest level is the whole image: it is gone through in bands, so that only coarser ones are there in float32
    bands = [slice(top, top + _BAND) for top in range(0, len(colour), _BAND)]
    halves = [
        _halved(np.where(visible[band, :, None], colour[band], 0).astype(np.float32), visible[band]) for band in bands
    ]
    coarse, known = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    coarse = _completed(coarse, known)
    filled = np.empty_like(colour)
    for band in bands:
        larger = _doubled(coarse[band.start // 2 : band.stop // 2], visible[band].shape)
        # the pixels that are visible keep their exact value, which float32 may not hold
        filled[band] = np.where(visible[band, :, None], colour[band], larger.astype(colour.dtype))
    return filled


def _completed(value: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[H, W, C] with what is not known taken from the means of ever larger blocks."""
    pyramid = [(value, known)]
    while not pyramid[-1][1].all():
        pyramid.append(_halved(*pyramid[-1]))
    filled = pyramid.pop()[0]
    for value, known in reversed(pyramid):
        filled = np.where(known[..., None], value, _doubled(filled, known.shape))
    return filled


def _doubled(value: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Each pixel as a block of 2 x 2, cropped to (height, width)."""
    return value.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def _halved(value: NDArray[np.float32], known: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Means of the known pixels in blocks of 2 x 2, and where there are any."""
    height, width = known.shape
    odd = ((0, height % 2), (0, width % 2))
    weight = np.pad(known, odd).astype(np.float32)
    total = np.pad(value, (*odd, (0, 0)))
    count = np.sum([weight[row::2, column::2] for row in (0, 1) for column in (0, 1)], axis=0)
    sums = np.sum([total[row::2, column::2] for row in (0, 1) for column in (0, 1)], axis=0)
    return sums / np.maximum(count, 1)[..., None], count > 0


def enlarged_rows(alpha: NDArray[np.generic], scale: int, start: int, stop: int) -> NDArray[np.generic]:
    """Rows ``start`` to ``stop`` of ``imresize(alpha, scale)``, without computing the others.

    Bicubic, so that a constant (opaque) alpha stays exactly that; clipped, as bicubic overshoots at edges.

    Args:
        alpha: [H, W] or [H, W, B]; uint8, uint16, or float in [0, 1].
        scale: whole factor; 1 copies.
        start, stop: output rows, multiples of ``scale``.

    Returns:
        [stop - start, W * scale] (and B), same dtype.
    """
    if scale == 1:
        return alpha[start:stop].copy()
    first = max(start // scale - _HALO, 0)
    part = alpha[first : stop // scale + _HALO]
    computed = part.astype(np.float32) if part.dtype == np.float16 else part
    rows = imresize(computed, scale)[start - first * scale : stop - first * scale]
    return (np.clip(rows, 0, 1) if rows.dtype.kind == "f" else rows).astype(alpha.dtype, copy=False)
