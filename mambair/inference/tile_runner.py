"""A network on tiles: channels fitted, precision chosen and checked, the eight views of a self-ensemble averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
# a result without a value above half a grey level, of an input with one above eight, is no picture
_BLACK, _VISIBLE = 0.5 / 255, 8 / 255


class NonFiniteOutputError(ArithmeticError):
    """A network gave NaN or infinite pixels in float32."""


@dataclass
class TileStats:
    """How an image was restored, filled in on the way.

    Attributes:
        tile: the largest side of a tile in input pixels, 0 for the whole image, after what memory made of it.
        overlap: the least overlap of tiles, in input pixels.
        tiles: how many there were.
        redone: how many of them came out black or not finite in a lower precision, and were computed in float32.
    """

    tile: int = 0
    overlap: int = 0
    tiles: int = 0
    redone: int = 0


class TileRunner:
    """A network as a function of tiles of any channels that can be fitted to it.

    Args:
        net: [B, C, h, w] float in [0, 1] -> [B, C, h * scale, w * scale], on ``device``. Where its attribute
            ``placed`` is true, it also takes ``seed`` and ``origin``.
        in_chans: its C.
        device: where it runs.
        dtype: float32, or bfloat16 / float16 for autocast; the scan's state is float32 in each.
        self_ensemble: whether each tile is the mean over its eight flipped and turned views. Each view has the
            tile's origin, and counts rows and columns as it lies.
        seed: handed to a ``placed`` network.

    Raises:
        ValueError: another dtype.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        in_chans: int,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        self_ensemble: bool = False,
        seed: int = 0,
    ) -> None:
        if dtype not in PRECISIONS:
            raise ValueError(f"dtype: must be float32, bfloat16 or float16, got {dtype}")
        self.net, self.in_chans, self.device, self.dtype = net, in_chans, device, dtype
        self.self_ensemble, self.seed = self_ensemble, seed

    def fits(self, channels: int) -> bool:
        """Whether tiles of that many channels can be run: the network's own, or grey and RGB for one another."""
        return channels == self.in_chans or {channels, self.in_chans} == {1, 3}

    @torch.inference_mode()
    def __call__(self, tile: Tensor, white: float, stats: TileStats, origins: Tensor | None = None) -> Tensor:
        """Restore tiles.

        Args:
            tile: [B, C, h, w], any real dtype.
            white: its value for 1.0.
            stats: ``redone`` is counted here.
            origins: int64 [B, 2], row and column of each tile's first pixel in its picture; None is (0, 0).

        Returns:
            float32 [B, C, h * scale, w * scale] on the device of ``tile``, white being 1.

        Raises:
            NonFiniteOutputError: NaN or infinity in float32, too.
        """
        x = tile.to(self.device).to(torch.float32) / white
        images, channels = x.shape[:2]
        origins = torch.zeros(images, 2, dtype=torch.int64) if origins is None else origins
        if channels < self.in_chans:  # grey through an RGB network
            x = x.expand(-1, self.in_chans, -1, -1)
        elif channels > self.in_chans:  # RGB through a grey network: each channel by itself
            x = x.reshape(images * channels, 1, *x.shape[2:])
            origins = origins.repeat_interleave(channels, dim=0)
        y = self._checked(x, origins.to(self.device), stats)
        if channels < self.in_chans:
            y = y.mean(dim=1, keepdim=True)
        elif channels > self.in_chans:
            y = y.reshape(images, channels, *y.shape[2:])
        return y.to(tile.device)

    def _checked(self, x: Tensor, origins: Tensor, stats: TileStats) -> Tensor:
        y = self._run(x, origins, self.dtype)
        if self.dtype != torch.float32:
            wrong = ~_finite(y) | _is_black(y, x)
            if wrong.any():
                stats.redone += int(wrong.sum())
                y[wrong] = self._run(x[wrong], origins[wrong], torch.float32)
        if not _finite(y).all():
            broken = y.numel() - int(y.isfinite().sum())
            raise NonFiniteOutputError(
                f"the network gave NaN or infinity in {broken} of {y.numel()} values of a tile of "
                f"{x.shape[-1]}x{x.shape[-2]} pixels, in float32; the weights are damaged or of another network"
            )
        return y

    def _run(self, x: Tensor, origins: Tensor, dtype: torch.dtype) -> Tensor:
        place = {"seed": self.seed, "origin": origins} if getattr(self.net, "placed", False) else {}
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            if not self.self_ensemble:
                return self.net(x, **place).to(torch.float32)
            views = [_turned_back(self.net(view, **place).to(torch.float32), turn) for turn, view in _views(x)]
        return torch.stack(views).mean(dim=0)


def _views(x: Tensor) -> Iterator[tuple[tuple[int, bool], Tensor]]:
    """The eight flips and quarter turns of [B, C, h, w], and how each was made."""
    for quarters in range(4):
        for flip in (False, True):
            view = torch.rot90(x, quarters, (-2, -1))
            yield (quarters, flip), (view.flip(-1) if flip else view).contiguous()


def _turned_back(y: Tensor, turn: tuple[int, bool]) -> Tensor:
    quarters, flip = turn
    return torch.rot90(y.flip(-1) if flip else y, -quarters, (-2, -1))


def _finite(y: Tensor) -> Tensor:
    """[B]: whether all values of an image are finite. A finite sum says so at once; others may have overflowed."""
    values = y.flatten(1)
    finite = values.sum(dim=1).isfinite()
    return finite if finite.all() else values.amax(dim=1).isfinite() & values.amin(dim=1).isfinite()


def _is_black(y: Tensor, x: Tensor) -> Tensor:
    """[B]: whether nothing of a visible input is left."""
    return (y.flatten(1).amax(dim=1) <= _BLACK) & (x.flatten(1).amax(dim=1) > _VISIBLE)
