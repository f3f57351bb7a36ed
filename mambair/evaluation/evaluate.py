"""The one evaluation loop, behind validation in training, test and benchmark."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.candidates import Candidate, Sample
from mambair.evaluation.results import ImageResult, SetResult
from mambair.evaluation.score_cache import ScoreCache, digest, key_of
from mambair.images.decoded_image import DecodedImage
from mambair.images.files import write_image
from mambair.metrics import calculate_metric, needs_reference
from mambair.system.console import progress_bar
from mambair.system.machine import describe_machine
from mambair.system.tables import first_line

logger = logging.getLogger(__name__)

ROUTING_SEED = 0  # MambaIRv2 draws noise, from this seed for every image
# what networks, torch and files raise, memory included; a fault of the program is none of these
FAILURES = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)

PictureName = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Storage:
    """Where an evaluation keeps things.

    Attributes:
        folder: that ``picture_name`` is relative to.
        picture_name: the file of a restored image, by the names of candidate and image; None: it is not written.
        cache: results it has are not measured again, unless a restored image is to be written and is not there, or
            is that of other weights.
    """

    folder: Path = Path()
    picture_name: PictureName = lambda candidate, image: None
    cache: ScoreCache | None = None


def measure(
    result: SetResult,
    candidates: Sequence[Candidate],
    *,
    storage: Storage | None = None,
    progress: str | None = None,
    name_key: str = "lq_path",
    share: slice = slice(None),
) -> SetResult:
    """Restore every image of a data set by every candidate and measure it, as 8-bit images.

    An image that cannot be read or restored, and a metric that raises, do not keep the others from being measured;
    ``result.failed`` says why.

    Args:
        result: what to measure, without results; its items are ``{"lq": [C, h, w], "gt": [C, H, W], "lq_path": str}``,
            float in [0, 1]. ``gt`` is needed only for metrics that compare with it.
        candidates: see `Candidate`.
        storage: keeps nothing by default.
        progress: label of a progress bar on stderr; None shows none.
        name_key: the key of an item's path that names the image.
        share: the images to measure, of all in the data set.

    Returns:
        ``result``, filled in.
    """
    run = _Measuring(result, candidates, storage or Storage(), name_key)
    numbers = range(len(result.dataset))[share]
    with progress_bar(len(numbers), description=progress or "", unit="image", quiet=progress is None) as bar:
        for index in numbers:  # counted, as a map-style data set need not end an iteration by itself
            run.measure_image(index)
            bar.update()
    result.failed += run.failures.lines(result.name, len(numbers))
    return result


def unique_name(path: Path, taken: set[str]) -> str:
    """The file's stem, with its folders in front where it is ``taken``; the name is then taken, too."""
    name = path.stem
    for folder in path.parents:
        if name not in taken:
            break
        name = f"{folder.name}_{name}"
    taken.add(name)
    return name


@dataclass
class _MetricFailures:
    """Metrics that raised: for each candidate and metric the number of images, the first of them and its reason."""

    found: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)

    def add(self, candidate: str, metric: str, image: str, reason: str) -> None:
        count, first, its_reason = self.found.get((candidate, metric), (0, image, reason))
        self.found[candidate, metric] = (count + 1, first, its_reason)

    def lines(self, dataset: str, total: int) -> Iterator[str]:
        for (candidate, metric), (count, image, reason) in self.found.items():
            yield f"{dataset}, {candidate}: {metric} failed on {count} of {total} images; {image}: {reason}"


class _Measuring:
    """The state of one call of `measure`."""

    def __init__(self, result: SetResult, candidates: Sequence[Candidate], storage: Storage, name_key: str) -> None:
        self.result, self.candidates, self.storage, self.name_key = result, candidates, storage, name_key
        self.failures = _MetricFailures()
        self.machine = describe_machine()
        self._taken: set[str] = set()
        result.images = {candidate.name: {} for candidate in candidates}

    def measure_image(self, index: int) -> None:
        result = self.result
        try:
            item = result.dataset[index]
        except FAILURES as error:
            result.failed.append(f"{result.name}, image {index + 1}: {first_line(error)}")
            return
        path = result.paths[index] = Path(item[self.name_key])
        image = result.names[index] = unique_name(path, self._taken)
        gt = item.get("gt")
        sample = Sample(item["lq"], result.name, image, result.level, None if gt is None else tuple(gt.shape[-2:]))
        for candidate in self.candidates:
            try:
                result.images[candidate.name][index] = self._find_or_measure(candidate, sample, gt)
            except FAILURES as error:
                result.failed.append(f"{result.name}, {image}, {candidate.name}: {first_line(error)}")

    def _find_or_measure(self, candidate: Candidate, sample: Sample, gt: Tensor | None) -> ImageResult:
        picture = self.storage.picture_name(candidate.name, sample.image)
        cache, key = self.storage.cache, ""
        metrics = self.result.metrics
        if cache is not None and candidate.identity is not None and (gt is not None or metrics):
            protocol = {name: dict(options) for name, options in metrics.items()}
            place = [sample.dataset, sample.image, sample.level]
            images = [digest(image) for image in (sample.lq, gt) if image is not None]
            key = key_of([candidate.identity, protocol, place, *images])
            entry = cache.find(key)
            is_there = entry is not None and (picture is None or self._file_digest(picture) == entry.get("picture"))
            if is_there and metrics.keys() <= entry["scores"].keys():
                scores = {name: float(entry["scores"][name]) for name in metrics}
                return ImageResult(sample.image, scores, entry["seconds"], entry["machine"], picture, is_reused=True)
        restored, seconds = self._restore(candidate, sample)
        if picture is not None:
            folder = self.storage.folder
            write_image(folder / picture, DecodedImage(to_pixels(restored)), within=folder)
        scores = self._scores(candidate.name, sample.image, restored, gt)
        if cache is not None and key and scores.keys() == self.result.metrics.keys():
            entry = {"image": sample.image, "scores": scores, "seconds": seconds, "machine": self.machine}
            cache.add(key, entry | ({"picture": self._file_digest(picture)} if picture is not None else {}))
        return ImageResult(sample.image, scores, seconds, self.machine, picture)

    def _file_digest(self, picture: str) -> str:
        """Of a restored image as it is on disk; empty where there is none."""
        path = self.storage.folder / picture
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _restore(self, candidate: Candidate, sample: Sample) -> tuple[Tensor, float]:
        """The result and the seconds it took."""
        gpu = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        # not inference_mode: what a network caches here must serve its next training step, too
        with torch.no_grad(), torch.random.fork_rng(gpu):
            if not candidate.is_prepared:
                candidate.prepare(sample.lq)
                candidate.is_prepared = True
            torch.manual_seed(ROUTING_SEED)
            began = time.perf_counter()
            restored = candidate(sample)
            if restored.is_cuda:
                torch.cuda.synchronize()
            return restored, time.perf_counter() - began

    def _scores(self, candidate: str, image: str, restored: Tensor, gt: Tensor | None) -> dict[str, float]:
        metrics = self.result.metrics
        if not metrics:
            return {}
        if gt is None and any(map(needs_reference, metrics.values())):
            raise ValueError("metrics need the ground truth, and the data set gives none; set dataroot_gt")
        if gt is not None and restored.shape != gt.shape:
            raise ValueError(
                f"the result is {tuple(restored.shape)}, its ground truth {tuple(gt.shape)} (C, H, W); "
                "check the scale of the network and of the data set"
            )
        if not bool(torch.isfinite(restored).all()):
            logger.warning("%s: the output of %s has values that are not finite; its metrics are NaN", image, candidate)
            return dict.fromkeys(metrics, math.nan)
        bgr_gt = None if gt is None else to_pixels(gt)[:, :, ::-1]
        return self._calculated(candidate, image, to_pixels(restored)[:, :, ::-1], bgr_gt)

    def _calculated(self, candidate: str, image: str, bgr: np.ndarray, bgr_gt: np.ndarray | None) -> dict[str, float]:
        scores = {}
        for metric, options in self.result.metrics.items():
            try:
                scores[metric] = calculate_metric(bgr, bgr_gt, options)
            except Exception as error:  # a metric may be anyone's code
                self.failures.add(candidate, metric, image, first_line(error))
        return scores
