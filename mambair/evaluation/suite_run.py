"""Measuring methods on the sets of a suite, image by image, each once however often the run is killed."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mambair.evaluation.candidates import Candidate, Sample
from mambair.evaluation.evaluate import to_uint8
from mambair.evaluation.score_cache import Journal, Measurement, key_of
from mambair.evaluation.suites import Suite
from mambair.evaluation.test_sets import ImageSet, MissingSetError, open_set
from mambair.images.decoded_image import DecodedImage
from mambair.images.files import write_image
from mambair.metrics import calculate_metric
from mambair.system.machine import describe_machine

JOURNAL = "journal.jsonl"
PICTURES = "pictures"


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        data: the folder that holds the test sets.
        sets: names of them, of the suite's.
        levels: of the suite.
        methods: the input first, then the others, in the order of the tables.
        folder: for the journal, the restored images and the reports.
        tiles: how images were cut, in words.
        self_ensemble: whether networks give the mean over the eight flips and turns of an image.
    """

    suite: Suite
    data: Path
    sets: Sequence[str]
    levels: Sequence[int]
    methods: Sequence[Candidate]
    folder: Path
    tiles: str = "whole images"
    self_ensemble: bool = False


@dataclass
class Results:
    """What has been measured.

    Attributes:
        measurements: in the order of levels, sets, images and methods.
        image_sets: by (level, name), those that were found.
        missing: why a set could not be measured, by its name.
        failed: why images could not be measured, one line each.
        reused: how many measurements were there already.
    """

    plan: Plan
    measurements: list[Measurement] = field(default_factory=list)
    image_sets: dict[tuple[int, str], ImageSet] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    reused: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything that was planned is there."""
        return not self.missing and not self.failed


def run(plan: Plan, *, progress: bool = True) -> Results:
    """Measure what the journal in ``plan.folder`` does not have yet.

    A set that is missing, or an image that cannot be restored or measured, does not keep the others from being done.
    """
    results = Results(plan)
    journal = Journal(plan.folder / JOURNAL)
    machine = describe_machine()
    for level in plan.levels:
        methods = [method for method in plan.methods if method.levels is None or level in method.levels]
        for name in plan.sets:
            try:
                image_set = open_set(plan.data, name, plan.suite, level)
            except (ValueError, OSError) as error:
                reason = str(error) if isinstance(error, MissingSetError) else f"{name}: {error}"
                results.missing[name] = reason
                continue
            results.image_sets[level, name] = image_set
            _SetRun(results, journal, image_set, level, methods, machine).measure(progress)
    return results


class _SetRun:
    """One set at one level."""

    def __init__(
        self,
        results: Results,
        journal: Journal,
        image_set: ImageSet,
        level: int,
        methods: Sequence[Candidate],
        machine: str,
    ) -> None:
        self.results, self.journal, self.images = results, journal, image_set
        self.level, self.methods, self.machine = level, methods, machine

    def measure(self, progress: bool) -> None:
        indices = range(len(self.images.paths))
        if progress:
            from tqdm import tqdm

            label = f"{self.images.name} {self.results.plan.suite.degree(self.level)}"
            indices = tqdm(indices, desc=label, unit="image")
        for index in indices:
            self._measure_image(index)

    def _measure_image(self, index: int) -> None:
        image = self.images.names[index]
        pair: tuple[Tensor, Tensor] | None = None
        try:
            content = self.images.fingerprint(index)
        except OSError as error:
            self.results.failed.append(f"{self.images.name}, {image}: {error}")
            return
        for method in self.methods:
            key = self._key(method, image, content)
            known = self.journal.find(key)
            if known is not None and (self.results.plan.folder / known.picture).is_file():
                self.results.measurements.append(known)
                self.results.reused += 1
                continue
            try:
                pair = pair or self.images.pair(index)
                measurement = self._restore(method, image, *pair)
            # what networks, torch and files raise, memory included; a fault of the program is none of these
            except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.results.failed.append(f"{self.images.name}, {image}, {method.name}: {reason}")
                continue
            self.journal.add(key, measurement)
            self.results.measurements.append(measurement)

    def _key(self, method: Candidate, image: str, content: str) -> str:
        suite = self.results.plan.suite
        protocol = suite.metrics(self.level)
        return key_of(
            (suite.task, self.level, protocol, method.name, method.identity, self.images.name, image, content)
        )

    def _restore(self, method: Candidate, image: str, lq: Tensor, gt: Tensor) -> Measurement:
        began = time.perf_counter()
        result = method(Sample(lq, self.images.name, image, self.level))
        if result.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        if result.shape != gt.shape:
            raise ValueError(f"the result is {tuple(result.shape)}, its ground truth {tuple(gt.shape)} (C, H, W)")
        pixels = to_uint8(result)
        relative = picture_path(self.results.plan.suite, self.level, self.images.name, image, method.name)
        write_image(self.results.plan.folder / relative, DecodedImage(pixels))
        scores = measure(pixels, to_uint8(gt), self.results.plan.suite, self.level)
        return Measurement(
            method.name,
            self.images.name,
            image,
            self.level,
            scores["psnr"],
            scores["ssim"],
            seconds,
            relative.as_posix(),
            self.machine,
        )


def measure(result: np.ndarray, gt: np.ndarray, suite: Suite, level: int) -> dict[str, float]:
    """PSNR and SSIM of two uint8 images [H, W, C] in RGB order, by the suite's protocol."""
    bgr, bgr_gt = result[:, :, ::-1], gt[:, :, ::-1]
    return {name: calculate_metric(bgr, bgr_gt, options) for name, options in suite.metrics(level).items()}


def picture_path(suite: Suite, level: int, dataset: str, image: str, method: str) -> Path:
    """Where a restored image is kept, relative to the run's folder."""
    degree = suite.degree(level).replace(" ", "")
    return Path(PICTURES, dataset, degree, _file_name(image), f"{_file_name(method)}.png")


def _file_name(text: str) -> str:
    """A name any file system takes; one that had to be changed gets a mark of its own."""
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", text).lstrip(".")[:80] or "_"
    return safe if safe == text else f"{safe}.{key_of([text])[:8]}"
