"""What lies between the network's rows and the file: blending with the input, resampling, the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mambair.folders.before_after import BeforeAfter
from mambair.folders.output_format import fitted
from mambair.folders.target_size import TargetSize
from mambair.images.alpha import enlarged_rows, fill_transparent
from mambair.images.decoded_image import DecodedImage
from mambair.images.files import ImageSpec
from mambair.images.resize import resized_strips

if TYPE_CHECKING:
    from mambair.inference.restorer import Progress, Restorer, TileStats

_BAND = 64  # rows that are blended at a time
_STRIP = 256  # rows of an input that are resampled at a time


@dataclass(frozen=True)
class Finish:
    """How results differ from what the network gives.

    Attributes:
        size: of results; None: as the network makes them.
        strength: share of the network's pixels, 0 to 1; the rest is the input, enlarged bicubically. At 0 the network
            does not run.
        compare: write a picture and a page that show before and after beside each result.
    """

    size: TargetSize | None = None
    strength: float = 1.0
    compare: bool = False

    def settings(self) -> dict[str, Any]:
        """Entries for the manifest, of what is not as by default."""
        size = {} if self.size is None else {"result_size": self.size.settings()}
        strength = {} if self.strength == 1 else {"strength": self.strength}
        return {**size, **strength, **({"compare": True} if self.compare else {})}

    def size_of(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """(height, width) of the result of an image of that size, from a network of that scale."""
        return (height * scale, width * scale) if self.size is None else self.size.of(height, width)

    def needs_network(self, height: int, width: int, scale: int) -> bool:
        """Return whether the network runs; a result that is smaller than its input gains nothing from enlarging."""
        is_smaller = self.size is not None and self.size.factor_of(height, width) < 1
        return self.strength > 0 and not (is_smaller and scale > 1)


def cheaper_ways(restorer: Restorer, finish: Finish) -> str:
    """What of the present settings could be had for less, in one line for people."""
    ways = []
    if restorer.self_ensemble:
        ways.append("without --self-ensemble an eighth of the time")
    if restorer.device.type == "cpu":
        ways.append("--device cuda on a machine with a GPU")
    elif restorer.dtype == torch.float32:
        ways.append("--dtype bf16")
    if finish.size is None:
        ways.append("--longest-side 4000 for a smaller file")
    return ", ".join(["cheaper: --strength 0 resamples without the network, in seconds", *ways])


class Finishing:
    """The way of one image from the network's rows to those of its file.

    Args:
        finish: what is asked for.
        image: the input.
        scale: of the network.

    Attributes:
        size: (height, width) of the result.
        pixels: [H, W, 1 to 4] of the input, alpha last.
        needs_network: whether rows come from the network; else they are those of the input.
    """

    def __init__(self, finish: Finish, image: DecodedImage, scale: int) -> None:
        height, width = image.pixels.shape[:2]
        self.size = finish.size_of(height, width, scale)
        self.needs_network = finish.needs_network(height, width, scale)
        self.pixels = image.interleaved()
        self._strength = finish.strength if self.needs_network else 1.0
        self._scale = scale if self.needs_network else 1
        self._comparison: BeforeAfter | None = None
        self._compares = finish.compare
        is_read = self._strength < 1 or not self.needs_network or finish.compare
        self._visible = visible_pixels(image, self.pixels) if is_read else self.pixels

    def attempts(
        self, restorer: Restorer, *, progress: Progress, stats: TileStats, side_by_side: int
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """What ``restorer.attempts`` gives for the image, with the same arguments; its own rows without the network."""
        if not self.needs_network:
            return ((row, self._visible[row : row + _STRIP]) for row in range(0, len(self._visible), _STRIP))
        return restorer.attempts(self.pixels, progress=progress, stats=stats, side_by_side=side_by_side)

    def rows(self, strips: Iterable[NDArray[Any]], spec: ImageSpec) -> Iterator[NDArray[Any]]:
        """The result from top to bottom, [N, W, C] as its file holds them, made of the network's strips."""
        comparison = BeforeAfter(spec, self._input_size) if self._compares else None
        blended = self._blended(strips) if self._strength < 1 else strips
        for strip in _resampled(blended, self._input_size, self._scale, self.size):
            rows = fitted(strip, spec)
            if comparison is not None:
                comparison.take(rows)
            yield rows
        self._comparison = comparison

    def write_comparison(self, path: Path, within: Path, *, name: str) -> None:
        """Write the comparison, if there is to be one, after the last of ``rows``; see `BeforeAfter.write`."""
        if self._comparison is not None:
            before = _resampled(_strips(self._visible), self._input_size, 1, self.size)
            self._comparison.write(path, before, within, name=name)

    @property
    def _input_size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def _blended(self, strips: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        row = 0
        for strip in strips:
            for top in range(0, len(strip), _BAND * self._scale):
                part = strip[top : top + _BAND * self._scale]
                before = enlarged_rows(self._visible, self._scale, row + top, row + top + len(part))
                yield _mixed(part, before, self._strength)
            row += len(strip)


def _strips(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (pixels[row : row + _STRIP] for row in range(0, len(pixels), _STRIP))


def _resampled(
    strips: Iterable[NDArray[Any]], input_size: tuple[int, int], scale: int, size: tuple[int, int]
) -> Iterator[NDArray[Any]]:
    """Strips of an image of ``scale`` times the input's (height, width), resampled to ``size`` if that differs."""
    height, width = (side * scale for side in input_size)
    if (height, width) == size:
        yield from strips
        return
    for strip in resized_strips(strips, height, size):
        yield np.clip(strip, 0, 1) if strip.dtype.kind == "f" else strip  # bicubic overshoots at edges


def visible_pixels(image: DecodedImage, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """``pixels``, interleaved, with the colour under transparent ones as the network sees it."""
    if image.alpha is None:
        return pixels
    return np.concatenate([fill_transparent(image.pixels, image.alpha), image.alpha[:, :, None]], axis=2)


def _mixed(restored: NDArray[Any], before: NDArray[Any], strength: float) -> NDArray[Any]:
    mixed = before + np.float32(strength) * (restored.astype(np.float32) - before)
    return (mixed if restored.dtype.kind == "f" else np.rint(mixed)).astype(restored.dtype)
