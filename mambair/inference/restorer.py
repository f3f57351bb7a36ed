"""One image through one network: modes, depths, alpha and tiles on the way in, the same kind of image back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mambair.images.alpha import enlarged_rows, fill_transparent
from mambair.inference.arrays import WHITE, adapt_image, adapt_numpy
from mambair.inference.limits import ResourceLimiter
from mambair.inference.memory import free_bytes, is_out_of_memory, peak_bytes
from mambair.inference.tile_runner import NonFiniteOutputError, TileRunner, TileStats
from mambair.inference.tiling import (
    DEFAULT_OVERLAP,
    DEFAULT_TILE,
    default_overlap,
    tile_count,
    tile_spans,
    tiled_strips,
)
from mambair.layers.decay import cache_decays
from mambair.system.devices import choose_device
from mambair.weights.loading import load

__all__ = ["NonFiniteOutputError", "Progress", "Restorer", "TileStats", "Tiling"]

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]

SMALLEST_TILE = 32
BATCH_ON_CUDA = 4
BATCH = 2  # keeps the cores of a CPU busier than tile after tile
_PROBE = 32  # side of the tile that memory is measured with; a multiple of every window in use
_SHARE = 0.8  # of the free memory
_CACHED = 2**16  # floats of a result that are worked on at a time
_UNSEEN = 1.5  # what kernels take for themselves, and the blending
_END = object()


class Tiling(NamedTuple):
    """How images are cut: largest side of a tile (0: never), least overlap, tiles that are in the network at once."""

    tile: int
    overlap: int
    batch: int


class Restorer:
    """A network with all that lies between it and an image.

    Args:
        net: [B, C, H, W] float in [0, 1] -> [B, C, H * upscale, W * upscale]; has ``upscale`` and ``in_chans``, and
            may have ``default_tile`` and ``tile_multiple``, by which sides of tiles are divisible. It is moved to
            ``device``, set to evaluation, and its decay rates are computed (``layers.decay``).
        device: where it runs, see ``system.devices.choose_device``; default: CUDA if there is one, else the CPU.
        tile: the largest side of a tile in input pixels; 0 means always the whole image. The default is the network's
            ``default_tile`` (256 where it says none) and the same on every machine, so that the pixels are too. Only
            where memory is short is it halved, before the first tile or when memory runs out; ``tile`` and
            ``overlap`` then say what is used, and a warning is logged.
        overlap: the least overlap of tiles, in input pixels; default 32, or a quarter of a smaller tile.
        batch: tiles that are in the network at once, in one call of it or in several from as many threads; default 4
            on CUDA, else 2.
        dtype: float32, or bfloat16 / float16 for autocast (the scan's state is float32 in each). A tile that comes
            out black or not finite in a lower precision is computed again in float32.
        self_ensemble: restore each tile in its eight flipped and turned views and take the mean (8 times the work).
        seed: of the noise inside a network that has some (MambaIRv2; its attribute ``placed`` is true). The noise is a
            fixed function of seed and place in the image, the same in all tiles; the views of a self-ensemble count
            rows and columns as they lie, from the tile's first pixel.

    Raises:
        ValueError: a tile or overlap that cannot be, a dtype other than those three, a device that is not there, a
            network that does not restore images.

    A restorer may be called from several threads at once.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        device: str | torch.device | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        dtype: torch.dtype = torch.float32,
        self_ensemble: bool = False,
        seed: int = 0,
    ) -> None:
        if not hasattr(net, "upscale"):
            raise ValueError(f"net: {type(net).__name__} restores no images, it is a backbone (it has no upscale)")
        self.device = choose_device(device)
        self.net = net.eval().to(self.device)
        cache_decays(self.net)
        self.scale: int = net.upscale  # type: ignore[assignment]
        self.in_chans: int = net.in_chans  # type: ignore[assignment]
        self.multiple = int(getattr(net, "tile_multiple", 1))
        self.dtype, self.self_ensemble = dtype, self_ensemble
        self._runner = TileRunner(
            self.net, self.in_chans, device=self.device, dtype=dtype, self_ensemble=self_ensemble, seed=seed
        )
        tile = int(getattr(net, "default_tile", DEFAULT_TILE)) if tile is None else tile
        overlap = default_overlap(tile) if overlap is None else overlap
        batch = (BATCH_ON_CUDA if self.device.type == "cuda" else BATCH) if batch is None else batch
        if batch < 1:
            raise ValueError(f"batch: must be at least 1 tile, got {batch}")
        self.asked = self._tiling = Tiling(tile, overlap, batch)
        self._make_locks()
        self._bytes_per_pixel: float | None = None
        self._pixels_that_fit = 0
        tile_spans(1, tile=tile, overlap=overlap, multiple=self.multiple)  # wrong settings fail here

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._inside = ResourceLimiter(self._tiling.batch)  # tiles, over all threads

    def __getstate__(self) -> dict[str, Any]:
        """All but the locks, which belong to one process; a copy has its own."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_inside")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_locks()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        dtype: torch.dtype = torch.float32,
        self_ensemble: bool = False,
        seed: int = 0,
        param_key: str | None = None,
    ) -> Restorer:
        """Load the network a file of weights belongs to (``mambair.load``); the other arguments as for the class.

        Raises:
            ValueError: the file is not understood (CheckpointError), or a setting is wrong.
            OSError: it cannot be read.
        """
        net = load(path, param_key=param_key)
        return cls(
            net,
            device=device,
            tile=tile,
            overlap=overlap,
            batch=batch,
            dtype=dtype,
            self_ensemble=self_ensemble,
            seed=seed,
        )

    @property
    def tile(self) -> int:
        """The largest side of a tile in input pixels, 0 for the whole image; what memory made of the one asked for."""
        return self._tiling.tile

    @property
    def overlap(self) -> int:
        """The least overlap of tiles, in input pixels."""
        return self._tiling.overlap

    @property
    def batch(self) -> int:
        """Tiles that are in the network at once."""
        return self._tiling.batch

    def __call__(self, image: Any, *, progress: Progress | None = None, stats: TileStats | None = None) -> Any:
        """Restore one image; the result is of the same kind, dtype and mode, ``scale`` times the size.

        Args:
            image: a numpy array [H, W] or [H, W, C] (RGB order), uint8, uint16 or float; or a PIL image; or a torch
                tensor [C, H, W] or [B, C, H, W], float, uint8 or uint16. Floats are in [0, 1] (noise may exceed it).
                C is what the network takes, or: grey for an RGB network (replicated, and averaged back), RGB for a
                grey network (each channel by itself), and either with alpha as the last channel. Alpha is enlarged
                bicubically; colour under fully transparent pixels is replaced by what is visible beside it.
                PIL modes L, LA, RGB, RGBA, I;16 and F are kept; 1 becomes L; palettes, CMYK, YCbCr, LAB and HSV
                become RGB, RGBA if they have transparency.
            progress: called after each tile with (tiles done, tiles in all).
            stats: is filled in with how it was done.

        Returns:
            The restored image, clipped to [0, 1]; integers are rounded.

        Raises:
            ValueError: an image that is none of the above.
            NonFiniteOutputError: the network gave NaN or infinite pixels in float32.
            MemoryError, torch.OutOfMemoryError: memory is too short for the smallest tile.
        """
        planes = adapt_image(image)
        batch, channels, height, width = planes.pixels.shape
        # rows and columns before channels in memory, as numpy and PIL want them
        output = torch.empty(
            (batch, height * self.scale, width * self.scale, channels),
            dtype=planes.pixels.dtype,
            device=planes.pixels.device,
        ).permute(0, 3, 1, 2)
        for row, strip in self._attempts(planes.pixels, progress, stats):
            output[..., row : row + strip.shape[-2], :] = strip
        return planes.finish(output)

    def strips(
        self, image: np.ndarray, *, progress: Progress | None = None, stats: TileStats | None = None
    ) -> Iterator[np.ndarray]:
        """As calling the restorer on a numpy array, but yield the result from top to bottom in strips of rows.

        Only one row of tiles of the result is in memory at a time, whatever the height of the image. Where memory runs
        out on the way, the rest is made of smaller tiles.
        """
        return self._fresh_rows(self.attempts(image, progress=progress, stats=stats))

    def attempts(
        self,
        image: np.ndarray,
        *,
        progress: Progress | None = None,
        stats: TileStats | None = None,
        side_by_side: int = 1,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """As ``strips``, with the number of each strip's first row; from row 0 again where memory runs out.

        So that a whole image is made of tiles of one size: who gets row 0 again throws away what came before.

        Args:
            image, progress, stats: as for calling the restorer.
            side_by_side: how many images are restored at once, by as many threads, which share the batch.
        """
        planes = adapt_numpy(image)
        attempts = self._attempts(planes.pixels, progress, stats, side_by_side)
        return ((row, planes.finish(strip)) for row, strip in attempts)

    def stream(self, images: Iterable[Any]) -> Iterator[Any]:
        """Restore image after image, in order; the next one is fetched while the present one is restored.

        Args:
            images: of any kind that calling the restorer takes, also mixed; its iterator runs in a thread of its own.

        Yields:
            What calling the restorer gives. An error of ``images`` or of one image ends the stream.
        """
        iterator = iter(images)
        with ThreadPoolExecutor(1, "fetch") as fetcher:
            following = fetcher.submit(next, iterator, _END)
            while (image := following.result()) is not _END:
                following = fetcher.submit(next, iterator, _END)
                yield self(image)

    def tiles_of(self, height: int, width: int) -> int:
        """How many tiles an image of that size is cut into."""
        return tile_count(height, width, tile=self.tile, overlap=self.overlap, multiple=self.multiple)

    @staticmethod
    def _fresh_rows(attempts: Iterator[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
        """Each row once, also where a new attempt begins at the top."""
        done = 0
        for row, strip in attempts:
            if row + len(strip) > done:
                yield strip[max(done - row, 0) :]
                done = row + len(strip)

    def _attempts(
        self, pixels: Tensor, progress: Progress | None, stats: TileStats | None, side_by_side: int = 1
    ) -> Iterator[tuple[int, Tensor]]:
        """(first row, finished strip) from top to bottom; from the top again, in smaller tiles, when memory runs out.

        Strips are [B, C, rows, W * scale], of the dtype and on the device of ``pixels``.
        """
        stats = TileStats() if stats is None else stats
        colour, alpha = self._split(pixels)
        size = (pixels.shape[-2], pixels.shape[-1])
        self._fit_into_memory(size, side_by_side)
        while True:
            tiling, row = self._tiling, 0
            per_call = max(1, tiling.batch // side_by_side)
            stats.tile, stats.overlap, stats.redone = tiling.tile, tiling.overlap, 0
            try:
                for strip in self._strips(pixels, colour, alpha, tiling._replace(batch=per_call), progress, stats):
                    yield row, strip
                    row += strip.shape[-2]
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._smaller(tiling, size) is None:
                    raise
                reason = "memory ran out"
            # outside of the except block, where the traceback keeps the tile's tensors alive
            self._lower(tiling, size, reason)

    def _strips(
        self,
        pixels: Tensor,
        colour: Tensor,
        alpha: np.ndarray | None,
        tiling: Tiling,
        progress: Progress | None,
        stats: TileStats,
    ) -> Iterator[Tensor]:
        white, row, done = WHITE[pixels.dtype], 0, 0
        grid = {"tile": tiling.tile, "overlap": tiling.overlap, "multiple": self.multiple}
        stats.tiles = tile_count(*pixels.shape[-2:], **grid)

        def net(tile: Tensor, origins: Tensor) -> Tensor:
            nonlocal done
            tiles = tile.shape[0] // pixels.shape[0]
            self._inside.take(tiles)
            try:
                restored = self._runner(tile, white, stats, origins)
            finally:
                self._inside.give(tiles)
            done += tiles
            if progress is not None:
                progress(done, stats.tiles)
            return restored

        for strip in tiled_strips(net, colour, scale=self.scale, batch=tiling.batch, placed=True, **grid):
            finished = _quantized(strip, white, pixels.dtype)
            if alpha is not None:
                rows = enlarged_rows(alpha, self.scale, row, row + strip.shape[-2])  # [rows, W * scale, B]
                finished = torch.cat([finished, torch.from_numpy(rows).permute(2, 0, 1)[:, None].to(finished)], dim=1)
            row += strip.shape[-2]
            yield finished

    def _split(self, pixels: Tensor) -> tuple[Tensor, np.ndarray | None]:
        """Colour [B, 1 or 3 or in_chans, H, W], safe under transparent pixels, and alpha [H, W, B] if there is any."""
        channels = pixels.shape[1]
        if self._runner.fits(channels):
            return pixels, None
        if channels not in (2, 4) or not self._runner.fits(channels - 1):
            raise ValueError(f"image: has {channels} channels, which do not fit a network of {self.in_chans}")
        image = (pixels.float() if pixels.dtype == torch.bfloat16 else pixels).permute(0, 2, 3, 1).cpu().numpy()
        colour = np.stack([fill_transparent(one[..., :-1], one[..., -1]) for one in image])
        alpha = np.ascontiguousarray(image[..., -1].transpose(1, 2, 0))
        return torch.from_numpy(colour).permute(0, 3, 1, 2).to(pixels.device), alpha

    def _fit_into_memory(self, size: tuple[int, int], images: int) -> None:
        """Lower the tile for images of that (height, width) until the network's memory for so many is there."""
        with self._lock:
            while True:
                tiling = self._tiling
                sides = [min(tiling.tile or side, side) for side in size]
                pixels = sides[0] * sides[1] * min(tiling.batch, images * self.tiles_of(*size))
                if pixels <= max(self._pixels_that_fit, SMALLEST_TILE**2):
                    return
                free = free_bytes(self.device)
                if free is None or pixels * self._need() <= _SHARE * free or self._smaller(tiling, size) is None:
                    self._pixels_that_fit = pixels
                    return
                need = pixels * self._need() / 2**30
                self._lower_to(tiling, size, f"a tile needs about {need:.1f} GiB, and {free / 2**30:.1f} GiB are free")

    def _need(self) -> float:
        """Bytes the network takes for each input pixel of a tile, measured once."""
        if self._bytes_per_pixel is None:
            x = torch.full((1, self.in_chans, _PROBE, _PROBE), 0.5, device=self.device)
            with torch.inference_mode():
                peak = peak_bytes(lambda x: self._runner.net(x), x)
            self._bytes_per_pixel = _UNSEEN * peak / _PROBE**2
        return self._bytes_per_pixel

    def _smaller(self, tiling: Tiling, size: tuple[int, int]) -> Tiling | None:
        """The next lower demand on memory: fewer tiles at once, which changes no pixel; then tiles of half the side."""
        if tiling.batch > 1:
            return tiling._replace(batch=tiling.batch // 2)
        tile = min(tiling.tile or max(size), max(size)) // 2
        tile -= tile % self.multiple
        if tile < max(SMALLEST_TILE, self.multiple):
            return None
        return Tiling(tile, min(tiling.overlap if tiling.tile else DEFAULT_OVERLAP, tile // 4), 1)

    def _lower(self, used: Tiling, size: tuple[int, int], reason: str) -> None:
        with self._lock:
            if self._tiling == used:  # else another thread has done it already
                self._lower_to(used, size, reason)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _lower_to(self, used: Tiling, size: tuple[int, int], reason: str) -> None:
        smaller = self._smaller(used, size)
        assert smaller is not None
        if smaller.tile == used.tile:
            logger.warning("%s: going on with %d tiles at a time instead of %d", reason, smaller.batch, used.batch)
        else:
            instead = used.tile or "whole images"
            logger.warning("%s: going on with tiles of %d instead of %s", reason, smaller.tile, instead)
        self._tiling = smaller
        self._inside.resize(smaller.batch)


def _quantized(strip: Tensor, white: float, dtype: torch.dtype) -> Tensor:
    """[B, C, rows, W] float clipped to [0, 1], as ``dtype`` with ``white`` for 1, rounded where that is an integer."""
    finished = torch.empty(strip.shape, dtype=dtype, device=strip.device)
    row = strip[..., :1, :].numel()
    # so few rows at a time that a CPU's second-level cache holds them from step to step
    rows = max(1, _CACHED // row) if strip.device.type == "cpu" else strip.shape[-2]
    for part, target in zip(strip.split(rows, dim=-2), finished.split(rows, dim=-2), strict=True):
        values = part.clamp(0, 1)
        if white > 1:
            values.mul_(white).round_()
        target.copy_(values)
    return finished
