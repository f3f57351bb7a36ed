"""Running a network tile by tile: the grid, and the blending of overlapping tiles into rows of finished output.

Tiles of one image all have the same size; each newcomer is faded in over what is there already along a raised cosine.
Because a pixel is always a mean ``old + weight * (new - old)``, tiles that agree give exactly what they agree on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_TILE = 256
DEFAULT_OVERLAP = 32


def default_overlap(tile: int) -> int:
    """The least overlap of tiles of that size where none is asked for, in input pixels."""
    return min(DEFAULT_OVERLAP, max(tile, 0) // 4)


class Span(NamedTuple):
    """Where a tile lies on one axis, in input pixels: ``start`` <= pixel < ``stop``."""

    start: int
    stop: int


def tile_spans(length: int, *, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Cut one axis into equal, evenly spread tiles.

    Args:
        length: pixels of the axis, at least 1.
        tile: the largest tile, in pixels; 0 means the whole axis. An axis that fits is one span.
        overlap: the least number of pixels that neighbours share; at most half of ``tile``.
        multiple: a tile that is smaller than the axis has a size divisible by this (the network's window).

    Returns:
        As few spans as possible, and those as small as possible; the first starts at 0, the last stops at ``length``.

    Raises:
        ValueError: a number out of its range.
    """
    _check_tile(tile, overlap, multiple)
    if length < 1:
        raise ValueError(f"length: must be at least 1 pixel, got {length}")
    if tile == 0 or length <= tile:
        return [Span(0, length)]
    limit = tile - tile % multiple
    count = math.ceil((length - overlap) / (limit - overlap))
    size = math.ceil((length + (count - 1) * overlap) / count)
    size += -size % multiple
    free = length - size
    starts = [index * free // (count - 1) for index in range(count)]
    return [Span(start, start + size) for start in starts]


def _check_tile(tile: int, overlap: int, multiple: int) -> None:
    if multiple < 1:
        raise ValueError(f"multiple: must be at least 1, got {multiple}")
    if tile < 0:
        raise ValueError(f"tile: must be a number of pixels, or 0 for the whole image, got {tile}")
    if overlap < 0:
        raise ValueError(f"overlap: must be 0 or more pixels, got {overlap}")
    if tile == 0:
        return
    if tile < multiple:
        raise ValueError(f"tile: the network works on windows of {multiple} pixels, got a tile of {tile}")
    if 2 * overlap > tile - tile % multiple:
        raise ValueError(f"overlap: must be at most half of the tile of {tile} pixels, got {overlap}")


def tile_count(height: int, width: int, *, tile: int, overlap: int, multiple: int = 1) -> int:
    """How many tiles :func:`tiled_strips` runs for an image of that size, with the same settings."""
    rows = tile_spans(height, tile=tile, overlap=overlap, multiple=multiple)
    columns = tile_spans(width, tile=tile, overlap=overlap, multiple=multiple)
    return len(rows) * len(columns)


def tiled_strips(
    net: Callable[..., Tensor],
    image: Tensor,
    *,
    scale: int,
    tile: int = DEFAULT_TILE,
    overlap: int = DEFAULT_OVERLAP,
    multiple: int = 1,
    batch: int = 1,
    placed: bool = False,
) -> Iterator[Tensor]:
    """Run ``net`` over ``image`` and yield the finished output from top to bottom, strip by strip.

    Memory holds one row of tiles of output and a batch, whatever the height of the image.

    Args:
        net: takes [B, C, h, w] and returns float [B, C', h * scale, w * scale].
        image: [B, C, H, W]; any dtype that ``net`` takes: tiles are handed over as they are.
        scale: output pixels per input pixel, along each axis.
        tile: the largest side of a tile in input pixels; 0, or an image that fits, is one call on the whole image.
        overlap: the least overlap of neighbours in input pixels, at most half of ``tile``.
        multiple: tiles smaller than the image have sides divisible by this. An axis that fits into one tile is not
            padded: a network that needs padding does it itself.
        batch: how many tiles go through ``net`` in one call.
        placed: give ``net`` a second argument, int64 [B, 2]: row and column of each tile's first pixel.

    Yields:
        [B, C', rows, W * scale]; their rows add up to H * scale. Blended in float32 (float64 for a float64 network)
        and returned in the dtype and on the device of the network's output.

    Raises:
        ValueError: an argument out of its range, or an output of ``net`` that has another size.
    """
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [B, C, H, W], got shape {tuple(image.shape)}")
    if scale < 1 or batch < 1:
        raise ValueError(f"scale and batch: must be at least 1, got scale={scale}, batch={batch}")
    height, width = image.shape[-2:]
    rows = tile_spans(height, tile=tile, overlap=overlap, multiple=multiple)
    columns = tile_spans(width, tile=tile, overlap=overlap, multiple=multiple)
    # a generator of its own, so that wrong arguments are reported here and not at the first strip
    return _strips(net if placed else lambda tiles, origins: net(tiles), image, rows, columns, scale, batch)


def tiled_forward(
    net: Callable[..., Tensor],
    image: Tensor,
    *,
    scale: int,
    tile: int = DEFAULT_TILE,
    overlap: int = DEFAULT_OVERLAP,
    multiple: int = 1,
    batch: int = 1,
) -> Tensor:
    """Run ``net`` over ``image`` in blended tiles; arguments and errors as for :func:`tiled_strips`.

    A network whose attribute ``placed`` is true gets the place of each tile as ``origin``.

    Returns:
        [B, C', H * scale, W * scale]. An image that fits into one tile gives exactly ``net(image)``.
    """
    placed = bool(getattr(net, "placed", False))

    def run(tiles: Tensor, origins: Tensor) -> Tensor:
        return net(tiles, origin=origins.to(tiles.device)) if placed else net(tiles)

    grid = {"tile": tile, "overlap": overlap, "multiple": multiple, "batch": batch}
    strips = tiled_strips(run, image, scale=scale, **grid, placed=True)
    first = next(strips)
    if first.shape[-2] == image.shape[-2] * scale:
        return first
    output = first.new_empty((*first.shape[:2], image.shape[-2] * scale, first.shape[-1]))
    output[..., : first.shape[-2], :] = first
    done = first.shape[-2]
    for strip in strips:
        output[..., done : done + strip.shape[-2], :] = strip
        done += strip.shape[-2]
    return output


def _strips(
    net: Callable[[Tensor, Tensor], Tensor],
    image: Tensor,
    rows: list[Span],
    columns: list[Span],
    scale: int,
    batch: int,
) -> Iterator[Tensor]:
    tiles = _run_tiles(net, image, rows, columns, scale, batch)
    if len(rows) == len(columns) == 1:
        yield next(tiles)
        return
    pending: Tensor | None = None  # output rows from the current tile row's start to the end of the one before
    for index, row in enumerate(rows):
        strip, dtype = _blend_columns(tiles, columns, scale)
        if pending is not None:
            _fade_in(strip[..., : pending.shape[-2], :], old=pending, axis=-2)
        finished = ((rows[index + 1].start if index + 1 < len(rows) else row.stop) - row.start) * scale
        pending = strip[..., finished:, :]
        yield strip[..., :finished, :].to(dtype)


def _run_tiles(
    net: Callable[[Tensor, Tensor], Tensor],
    image: Tensor,
    rows: list[Span],
    columns: list[Span],
    scale: int,
    batch: int,
) -> Iterator[Tensor]:
    """Yield the network's output for each tile, row by row from left to right; a batch may reach into the next row."""
    images, channels = image.shape[:2]
    height, width = rows[0].stop - rows[0].start, columns[0].stop - columns[0].start
    grid = itertools.product(rows, columns)
    while spans := list(itertools.islice(grid, batch)):
        tiles = [image[..., row.start : row.stop, column.start : column.stop] for row, column in spans]
        origins = torch.tensor([(row.start, column.start) for row, column in spans]).repeat_interleave(images, dim=0)
        output = net(torch.cat(tiles) if len(tiles) > 1 else tiles[0], origins)
        expected = (images * len(tiles), height * scale, width * scale)
        if output.ndim != 4 or (output.shape[0], *output.shape[2:]) != expected:
            raise ValueError(
                f"net: for an input of {[images * len(tiles), channels, height, width]} and scale {scale} the output "
                f"must be [{expected[0]}, C, {expected[1]}, {expected[2]}], got {list(output.shape)}"
            )
        yield from output.split(images)


def _blend_columns(tiles: Iterator[Tensor], columns: list[Span], scale: int) -> tuple[Tensor, torch.dtype]:
    """Blend the next tiles into a fresh strip of the image's width; returns it and the dtype the tiles had."""
    first = next(tiles)
    working = torch.float64 if first.dtype == torch.float64 else torch.float32
    strip = first.new_empty((*first.shape[:-1], columns[-1].stop * scale), dtype=working)
    strip[..., : columns[0].stop * scale] = first
    for previous, span in itertools.pairwise(columns):
        start, covered, stop = span.start * scale, previous.stop * scale, span.stop * scale
        old = strip[..., start:covered].clone()
        strip[..., start:stop] = next(tiles)
        _fade_in(strip[..., start:covered], old=old, axis=-1)
    return strip, first.dtype


def _fade_in(new: Tensor, *, old: Tensor, axis: int) -> None:
    """Turn ``new`` into the blend from ``old`` (at the beginning of ``axis``) to ``new`` (at its end), in place."""
    length = new.shape[axis]
    if length == 0:
        return
    # a rising half wave sampled at pixel centres: above 0 at the first pixel and below 1 at the last
    phase = (torch.arange(length, dtype=torch.float64) + 0.5) * (math.pi / length)
    weight = (0.5 - 0.5 * torch.cos(phase)).to(device=new.device, dtype=new.dtype)
    if axis == -2:
        weight = weight[:, None]
    new.copy_(old + weight * (new - old))
