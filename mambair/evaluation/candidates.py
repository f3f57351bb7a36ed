"""What can be measured: networks, functions, results that other programs left in folders, and the unrestored input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mambair import __version__
from mambair.archs.published import family_with
from mambair.data.restoration_dataset import to_pixels, to_tensor
from mambair.evaluation.suites import Suite
from mambair.images.files import list_images, read_image
from mambair.images.lazy_image import in_color
from mambair.images.resize import imresize
from mambair.inference.restorer import Restorer
from mambair.inference.tile_runner import TileStats
from mambair.profiling.counting import count_parameters
from mambair.system.errors import RequestError

WARM_UP_SIDE = 16


@dataclass(frozen=True)
class Sample:
    """The image a candidate is asked for.

    Attributes:
        lq: input [C, h, w], float in [0, 1] (noise may leave it).
        dataset, image: names, for candidates that look results up.
        level: scale of super-resolution, sigma of the noise or quality of the JPEG files.
        size: (H, W) of the ground truth; None where there is none.
    """

    lq: Tensor
    dataset: str
    image: str
    level: int = 1
    size: tuple[int, int] | None = None


class Candidate:
    """Anything that gives a result for an image.

    Attributes:
        name: in the tables.
        identity: changes whenever results may; None: results are never taken from the score cache.
        parameters: of the network, None where there is none.
        in_chans: channels of the images it takes, None where it does not say.
        levels: that it can be measured at; None for all.
        published_network: name of the published network it is, if so.
        is_prepared: whether `prepare` was called.
    """

    name: str
    identity: str | None = None
    parameters: int | None = None
    in_chans: int | None = None
    levels: tuple[int, ...] | None = None
    published_network: str | None = None
    is_prepared = False

    def prepare(self, lq: Tensor) -> None:
        """Do what the first image needs and the clock must not count; ``lq`` is [C, h, w]."""

    def __call__(self, sample: Sample) -> Tensor:
        """The result [C, H, W], float in [0, 1]."""
        raise NotImplementedError


class FunctionCandidate(Candidate):
    """A function of batches.

    Args:
        name, identity: see `Candidate`.
        restore: [1, C, h, w] float in [0, 1] to [1, C, H, W], on any device.
        net: the network inside, for the number of its parameters.
    """

    def __init__(
        self,
        name: str,
        restore: Callable[[Tensor], Tensor],
        *,
        identity: str | None = None,
        net: torch.nn.Module | None = None,
    ) -> None:
        self.name, self.identity, self._restore = name, identity, restore
        if net is not None:
            self.parameters, self.in_chans = count_parameters(net), getattr(net, "in_chans", None)
            self.published_network = family_with(self.parameters)

    def prepare(self, lq: Tensor) -> None:
        """Load libraries and native code, where a network is known."""
        if self.parameters is not None:
            self._restore(lq[None, :, :WARM_UP_SIDE, :WARM_UP_SIDE])

    def __call__(self, sample: Sample) -> Tensor:
        return self._restore(sample.lq.unsqueeze(0))[0]


class NetworkCandidate(Candidate):
    """Weights, run on whole images unless a tile is asked for.

    Args:
        name: in the tables.
        path: of the weights.
        param_key, tile, overlap, device, dtype, self_ensemble: as for `mambair.Restorer.from_checkpoint`; ``tile`` is
            0, whole images, by default.

    Raises:
        ValueError, OSError: the weights cannot be understood or read, or a setting is wrong.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        param_key: str | None = None,
        tile: int = 0,
        overlap: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        self_ensemble: bool = False,
    ) -> None:
        self.name, self._path = name, path
        self._restorer = Restorer.from_checkpoint(
            path,
            param_key=param_key,
            device=device,
            tile=tile,
            overlap=overlap,
            batch=1,
            dtype=dtype,
            self_ensemble=self_ensemble,
        )
        self.upscale: int = self._restorer.scale
        self.parameters, self.in_chans = count_parameters(self._restorer.net), self._restorer.in_chans
        self.published_network = family_with(self.parameters)
        weights = hashlib.sha256(path.read_bytes()).hexdigest()
        settings = (param_key, tile, self._restorer.overlap, str(dtype), self_ensemble, self._restorer.device.type)
        self.identity = f"{weights} {settings} {__version__}"

    def check_fits(self, suite: Suite) -> None:
        """Refuse a suite of another task or other channels, and note the one level it can be measured at.

        Raises:
            RequestError: the network does not fit the suite.
        """
        if suite.has_ground_truth and (self.upscale == 1) == (suite.task == "sr"):
            expected = "networks that enlarge" if suite.task == "sr" else "networks that keep the size"
            raise RequestError(
                f"{self._path}: {suite.name} is for {expected}, and this one has a factor of {self.upscale}"
            )
        if self.in_chans != suite.channels:
            raise RequestError(
                f"{self._path}: {suite.name} has images of {suite.channels} channels, the network {self.in_chans}"
            )
        self.levels = (self.upscale,) if suite.is_scaled else None

    def prepare(self, lq: Tensor) -> None:
        """Load libraries and native code."""
        self._restorer(lq[:, :WARM_UP_SIDE, :WARM_UP_SIDE])

    def __call__(self, sample: Sample) -> Tensor:
        """The network's output.

        Raises:
            RequestError: memory is too short for the tile that was asked for, so the result would be another one.
            ArithmeticError: the output is not finite.
        """
        stats = TileStats()
        asked = self._restorer.tile
        result = self._restorer(sample.lq, stats=stats)
        if self._restorer.tile != asked:
            size = f"{sample.lq.shape[-1]}x{sample.lq.shape[-2]}"
            whole = "as a whole" if asked == 0 else f"in tiles of {asked}"
            raise RequestError(f"{self.name}: {size} pixels do not fit into memory {whole}; ask for a smaller tile")
        return result


class FolderCandidate(Candidate):
    """Results that another program wrote: ``FOLDER/SET/NAME.png``, or ``FOLDER/SET/x4/NAME.png`` for several levels.

    A result is found by the name of its ground truth, or one that begins with it and an underscore or ``x<level>``.

    Raises:
        RequestError: there is no such folder.
    """

    def __init__(self, name: str, folder: Path, suite: Suite) -> None:
        if not folder.is_dir():
            raise RequestError(f"{folder}: there is no such folder of results")
        self.name, self._folder, self._suite = name, folder, suite
        stamps = [(str(path), path.stat().st_mtime_ns) for path in list_images(folder, recursive=True)]
        self.identity = hashlib.sha256(repr(stamps).encode()).hexdigest()

    def __call__(self, sample: Sample) -> Tensor:
        """The result in the channels of the input.

        Raises:
            RequestError: there is none for this image, or several, or one of another size.
            ValueError: it cannot be read.
        """
        home = self._folder / sample.dataset
        deeper = home / self._suite.degree(sample.level).replace(" ", "")
        folder = deeper if deeper.is_dir() else home
        if not folder.is_dir():
            raise RequestError(f"{self.name}: there is no folder {folder}")
        path = self._choose(folder, sample)
        color = "rgb" if sample.lq.shape[0] == 3 else "gray"
        result = to_tensor(in_color(read_image(path).pixels, color))
        height, width = (side * self._suite.upscale(sample.level) for side in sample.lq.shape[-2:])
        if not self._suite.has_ground_truth and result.shape[-2:] != (height, width):
            raise RequestError(
                f"{path}: {width} x {height} pixels are expected, it has {result.shape[-1]} x {result.shape[-2]}"
            )
        return result

    def _choose(self, folder: Path, sample: Sample) -> Path:
        images = list_images(folder)
        exact = [path for path in images if path.stem == sample.image]
        begins = tuple(sample.image + mark for mark in ("_", f"x{sample.level}"))
        candidates = exact or [path for path in images if path.stem.startswith(begins)]
        if len(candidates) != 1:
            what = "several results" if candidates else "no result"
            raise RequestError(f"{self.name}: {folder} has {what} for {sample.image}")
        return candidates[0]


class InputCandidate(Candidate):
    """The input as it is, where it has the size of the ground truth; else enlarged bicubically, as MATLAB does.

    Args:
        name: in the tables: "bicubic", "noisy input", ...
        is_enlarged: whether inputs are smaller than results, by the factor ``level`` of the sample.
    """

    def __init__(self, name: str, *, is_enlarged: bool) -> None:
        self.name, self._is_enlarged = name, is_enlarged
        self.identity = f"input, enlarged: {is_enlarged}"

    def __call__(self, sample: Sample) -> Tensor:
        """The input at the size of the output, as 8 bits where it is enlarged."""
        if not self._is_enlarged or sample.lq.shape[-2:] == sample.size:
            return sample.lq.clamp(0, 1)
        return to_tensor(np.asarray(imresize(to_pixels(sample.lq), sample.level)))


def input_of(dataset_type: str, scale: int) -> InputCandidate:
    """The baseline of an option file's data set: bicubic enlargement, or the input named by the ``type`` of the set."""
    names = {"GaussianDenoisingDataset": "noisy input", "JPEGArtifactsDataset": "JPEG input"}
    name = "bicubic" if scale > 1 else names.get(dataset_type, "input")
    return InputCandidate(name, is_enlarged=scale > 1)


def check_names(candidates: Sequence[Candidate]) -> None:
    """Refuse two candidates of one name.

    Raises:
        RequestError: naming it.
    """
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"several methods are called {', '.join(twice)}; name them: --weights NAME=FILE")
