"""Measuring a restoration function on a data set: the one loop behind training validation and mambair/test.py."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mambair.images.decoded_image import DecodedImage
from mambair.images.files import write_image
from mambair.metrics import calculate_metric

logger = logging.getLogger(__name__)

NAME = "name"  # the key of an image's name among its metrics


class EvaluationDataset(Protocol):
    """What can be evaluated: a map-style data set; BasicSR's are, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class ScoreCache(Protocol):
    """Scores that were measured before, by the pixels of input and ground truth."""

    def find(self, lq: Tensor, gt: Tensor, /) -> Mapping[str, float] | None: ...

    def add(self, lq: Tensor, gt: Tensor, scores: Mapping[str, float], /) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every image of one data set.

    Attributes:
        dataset: the data set's name.
        metrics: the options of each metric, by the name it has in the results: what the numbers mean.
        per_image: one ``{"name": ..., metric: value, ...}`` per image, in the order of the data set. A value is NaN
            where the network's output was not finite.
    """

    dataset: str
    metrics: Mapping[str, Mapping[str, Any]]
    per_image: list[dict[str, Any]]

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each metric over the images, as the papers average; NaN for an empty data set."""
        count = len(self.per_image)
        return {
            metric: math.fsum(image[metric] for image in self.per_image) / count if count else math.nan
            for metric in self.metrics
        }


def evaluate(
    restore: Callable[[Tensor], Tensor],
    dataset: EvaluationDataset,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    save_folder: str | os.PathLike[str] | None = None,
    suffix: str | None = None,
    progress: bool = True,
    memory: ScoreCache | None = None,
) -> Evaluation:
    """Restore every image of ``dataset`` and measure it against its ground truth, as 8-bit images.

    Args:
        restore: [1, C, h, w] RGB or grey float in [0, 1] to [1, C, H, W]; any device.
        dataset: items ``{"lq": [C, h, w], "gt": [C, H, W], "lq_path": str}``; ``gt`` is needed for metrics only. Its
            ``opt["name"]`` names it, else its class does.
        metrics: an option file's ``val.metrics``: {name: {type, crop_border, test_y_channel, better, ...}}.
        save_folder: where restored images go, as ``<name>.png`` or ``<name>_<suffix>.png``; nowhere by default.
        suffix: see ``save_folder``.
        progress: show a progress bar on stderr.
        memory: images it knows are not restored again, unless a restored image is to be saved and is not there.

    Raises:
        KeyError: nobody knows a metric.
        ValueError: an image cannot be measured, or no ground truth is there; the message names the image.
    """
    if NAME in metrics:
        raise ValueError(f"metrics: {NAME!r} cannot be a metric's name, as it is the column of the images' names")
    per_image = []
    taken: set[str] = set()
    for item in _items(dataset, progress=progress):
        name = unique_name(Path(item["lq_path"]), taken)
        target = None
        if save_folder is not None:
            target = Path(save_folder) / (f"{name}_{suffix}.png" if suffix else f"{name}.png")
        scores = _remembered(memory, item, metrics) if target is None or target.is_file() else None
        if scores is None:
            # not inference_mode: what a network caches here must serve its next training step, too
            with torch.no_grad():
                restored = restore(item["lq"].unsqueeze(0))
            if target is not None:
                write_image(target, DecodedImage(to_uint8(restored)))
            scores = _measure(name, restored, item.get("gt"), metrics)
            if memory is not None and "gt" in item:
                memory.add(item["lq"], item["gt"], scores)
        per_image.append({NAME: name, **scores})
    return Evaluation(dataset_name(dataset), {name: dict(options) for name, options in metrics.items()}, per_image)


def dataset_name(dataset: object) -> str:
    """The name an option file gives the data set, else its class name."""
    return str(getattr(dataset, "opt", {}).get("name") or type(dataset).__name__)


def to_uint8(image: Tensor) -> np.ndarray:
    """[1, C, H, W] or [C, H, W] float in [0, 1], RGB, to [H, W, C] uint8: clipped, rounded; NaN becomes 0."""
    image = image.detach().float().nan_to_num().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(image.reshape(image.shape[-3:]).permute(1, 2, 0).numpy())


def _items(dataset: EvaluationDataset, *, progress: bool) -> Iterator[Mapping[str, Any]]:
    """The items in order; indices are counted, as a map-style data set need not end an iteration by itself."""
    indices: Any = range(len(dataset))
    if progress:
        from tqdm import tqdm

        indices = tqdm(indices, desc=dataset_name(dataset), unit="image")
    for index in indices:
        yield dataset[index]


def unique_name(path: Path, taken: set[str]) -> str:
    """The file's stem, with its folders in front where it is ``taken``; the name is then taken, too."""
    name = path.stem
    for folder in path.parents:
        if name not in taken:
            break
        name = f"{folder.name}_{name}"
    taken.add(name)
    return name


def _remembered(
    memory: ScoreCache | None, item: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]
) -> dict[str, float] | None:
    found = memory.find(item["lq"], item["gt"]) if memory is not None and "gt" in item else None
    return None if found is None or set(found) != set(metrics) else {name: found[name] for name in metrics}


def _measure(
    name: str, restored: Tensor, gt: Tensor | None, metrics: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    if not metrics:
        return {}
    if gt is None:
        raise ValueError(f"{name}: metrics need the ground truth, and the data set gives none; set dataroot_gt")
    if restored.shape[-3:] != gt.shape[-3:]:
        found, wanted = tuple(restored.shape[-3:]), tuple(gt.shape[-3:])
        raise ValueError(
            f"{name}: the result is {found} and its ground truth {wanted} (C, H, W); check the scale of the network "
            "and of the data set"
        )
    if not bool(torch.isfinite(restored).all()):
        logger.warning("%s: the network's output has values that are not finite; its metrics are NaN", name)
        return dict.fromkeys(metrics, math.nan)
    bgr, bgr_gt = (to_uint8(image)[:, :, ::-1] for image in (restored, gt))
    try:
        return {metric: calculate_metric(bgr, bgr_gt, options) for metric, options in metrics.items()}
    except ValueError as fault:
        raise ValueError(f"{name}: {fault}") from fault
