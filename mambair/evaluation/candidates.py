"""What is compared: networks, results that other programs left in folders, and the unrestored input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mambair import __version__
from mambair.data.restoration_dataset import to_tensor
from mambair.evaluation import published
from mambair.evaluation.evaluate import to_uint8
from mambair.evaluation.suites import ROUTING_SEED, Suite
from mambair.images.files import list_images, read_image
from mambair.images.lazy_image import in_color
from mambair.images.resize import imresize
from mambair.inference.restorer import Restorer
from mambair.inference.tile_runner import TileStats
from mambair.profiling.counting import count_parameters

WARM_UP_SIDE = 16


class MethodError(ValueError):
    """Weights or a folder of results that cannot be measured in this suite; the message says why."""


@dataclass(frozen=True)
class Sample:
    """The image a method is asked for.

    Attributes:
        lq: input [C, h, w], float in [0, 1] (noise may leave it).
        dataset, image: names, for methods that look results up.
        level: of the suite.
    """

    lq: Tensor
    dataset: str
    image: str
    level: int


class Candidate(Protocol):
    """Anything that gives a result for an image.

    Attributes:
        name: in the tables.
        identity: changes whenever results may.
        parameters: of the network, None where there is none.
        levels: of the suite that it can be measured at; None for all.
        published_network: name of the published network it is, if so.
    """

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def levels(self) -> tuple[int, ...] | None: ...
    @property
    def published_network(self) -> str | None: ...

    def __call__(self, sample: Sample) -> Tensor:
        """The result [C, H, W], float in [0, 1]."""
        ...


class NetworkCandidate:
    """Weights, run on whole images unless a tile is asked for.

    Args:
        name: in the tables.
        path: of the weights.
        suite: that it is measured in; its factor of enlargement and its channels must fit.
        tile, overlap: in input pixels; 0 for whole images.
        device, dtype, self_ensemble: as for ``mambair.Restorer``.

    Raises:
        MethodError: the network does not fit the suite.
        ValueError, OSError: the weights cannot be understood or read, or a setting is wrong.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        suite: Suite,
        *,
        tile: int = 0,
        overlap: int | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        self_ensemble: bool = False,
    ) -> None:
        self.name = name
        self._restorer = Restorer.from_checkpoint(
            path, device=device, tile=tile, overlap=overlap, batch=1, dtype=dtype, self_ensemble=self_ensemble
        )
        upscale, channels = self._restorer.scale, self._restorer.in_chans
        if (upscale == 1) == (suite.task == "sr"):
            wanted = "networks that enlarge" if suite.task == "sr" else "networks that keep the size"
            raise MethodError(f"{path}: {suite.name} is for {wanted}, and this one has a factor of {upscale}")
        if channels != suite.channels:
            raise MethodError(f"{path}: {suite.name} has images of {suite.channels} channels, the network {channels}")
        self.levels = (upscale,) if suite.task == "sr" else None
        self.parameters: int | None = count_parameters(self._restorer.net)
        self.published_network = published.network_with(self.parameters)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        settings = (tile, self._restorer.overlap, str(dtype), self_ensemble, self._restorer.device.type)
        self.identity = f"{digest} {settings} {__version__}"
        self._is_warm = False

    def __call__(self, sample: Sample) -> Tensor:
        """The network's output.

        Raises:
            MethodError: memory is too short for the tile that was asked for, so the result would be another one.
            ArithmeticError: the output is not finite.
        """
        if not self._is_warm:  # libraries and native code are loaded before the clock counts
            self._run(sample.lq[:, :WARM_UP_SIDE, :WARM_UP_SIDE])
            self._is_warm = True
        return self._run(sample.lq)

    def _run(self, lq: Tensor) -> Tensor:
        stats = TileStats()
        torch.manual_seed(ROUTING_SEED)  # MambaIRv2 draws noise
        asked = self._restorer.tile
        result = self._restorer(lq, stats=stats)
        if self._restorer.tile != asked:
            size = f"{lq.shape[-1]}x{lq.shape[-2]}"
            whole = "as a whole" if asked == 0 else f"in tiles of {asked}"
            raise MethodError(f"{self.name}: {size} pixels do not fit into memory {whole}; ask for a smaller tile")
        return result


class FolderCandidate:
    """Results that another program wrote: ``FOLDER/SET/NAME.png``, or ``FOLDER/SET/x4/NAME.png`` for several levels.

    A result is found by the name of its ground truth, or one that begins with it and an underscore or ``x<level>``.

    Raises:
        MethodError: there is no such folder.
    """

    parameters: int | None = None
    levels: tuple[int, ...] | None = None
    published_network: str | None = None

    def __init__(self, name: str, folder: Path, suite: Suite) -> None:
        if not folder.is_dir():
            raise MethodError(f"{folder}: there is no such folder of results")
        self.name, self._folder, self._suite = name, folder, suite
        stamps = [(str(path), path.stat().st_mtime_ns) for path in list_images(folder, recursive=True)]
        self.identity = hashlib.sha256(repr(stamps).encode()).hexdigest()

    def __call__(self, sample: Sample) -> Tensor:
        """The result in the channels of the input.

        Raises:
            MethodError: there is none for this image, or several.
            ValueError: it cannot be read.
        """
        home = self._folder / sample.dataset
        deeper = home / self._suite.degree(sample.level).replace(" ", "")
        folder = deeper if deeper.is_dir() else home
        if not folder.is_dir():
            raise MethodError(f"{self.name}: there is no folder {folder}")
        path = self._choose(folder, sample)
        color = "rgb" if sample.lq.shape[0] == 3 else "gray"
        return to_tensor(in_color(read_image(path).pixels, color))

    def _choose(self, folder: Path, sample: Sample) -> Path:
        images = list_images(folder)
        exact = [path for path in images if path.stem == sample.image]
        begins = tuple(sample.image + mark for mark in ("_", f"x{sample.level}"))
        found = exact or [path for path in images if path.stem.startswith(begins)]
        if len(found) != 1:
            what = "several results" if found else "no result"
            raise MethodError(f"{self.name}: {folder} has {what} for {sample.image}")
        return found[0]


class InputCandidate:
    """The input as it is; for super-resolution enlarged bicubically, as MATLAB does."""

    parameters: int | None = None
    levels: tuple[int, ...] | None = None
    published_network: str | None = None
    identity = "input 1"

    def __init__(self, suite: Suite) -> None:
        self.name, self._suite = suite.input_name, suite

    def __call__(self, sample: Sample) -> Tensor:
        """The input at the size of the output, as 8 bits where it is enlarged."""
        if self._suite.task != "sr":
            return sample.lq.clamp(0, 1)
        return to_tensor(enlarge(to_uint8(sample.lq), sample.level))


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [H * scale, W * scale, C], bicubic."""
    return np.asarray(imresize(image, scale))


def check_names(methods: Sequence[Candidate]) -> None:
    """Refuse two methods of one name.

    Raises:
        MethodError: naming it.
    """
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MethodError(f"several methods are called {', '.join(twice)}; name them: --weights NAME=FILE")
