"""What was measured: one image, one data set, one run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mambair.evaluation.candidates import Candidate
from mambair.evaluation.suites import Suite
from mambair.metrics import needs_reference

Metrics = Mapping[str, Mapping[str, Any]]  # an option file's ``val.metrics``: {name: {type, crop_border, ...}}


class EvaluationDataset(Protocol):
    """What can be measured: a map-style data set; BasicSR's are, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def metrics_for(dataset: EvaluationDataset, metrics: Metrics) -> Metrics:
    """Those of ``metrics`` that can be measured on a data set: all, or without ground truth those that need none."""
    if getattr(dataset, "has_ground_truth", True):
        return metrics
    return {name: options for name, options in metrics.items() if not needs_reference(options)}


@dataclass(frozen=True)
class ImageResult:
    """One image restored by one candidate.

    Attributes:
        image: its name.
        scores: by metric; NaN where the output was not finite. A metric that could not be measured is absent.
        seconds: that restoring took.
        machine: processor, versions and date.
        picture: the restored image, relative to the run's folder; None if it was not kept.
        is_reused: whether it comes from the score cache.
    """

    image: str
    scores: Mapping[str, float]
    seconds: float
    machine: str
    picture: str | None = None
    is_reused: bool = False


@dataclass
class SetResult:
    """One data set, measured with each candidate.

    Attributes:
        name: of the data set.
        dataset: its items.
        metrics: the options of each metric, by its name: what the numbers mean.
        level: scale of super-resolution, sigma of the noise or quality of the JPEG files.
        inputs: how the inputs come to be, in words.
        published_images: how many images the published set of this name has, if it is one.
        paths: of the images that could be read, by their number in the data set.
        names: of these images.
        images: for each candidate, results by the number of the image.
        failed: why something could not be measured, one line each.
    """

    name: str
    dataset: EvaluationDataset
    metrics: Metrics
    level: int = 1
    inputs: str = ""
    published_images: int | None = None
    paths: dict[int, Path] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    images: dict[str, dict[int, ImageResult]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def of(self, candidate: str) -> list[ImageResult]:
        """Results of a candidate in the order of the data set."""
        return [result for _, result in sorted(self.images.get(candidate, {}).items())]

    def mean(self, candidate: str) -> dict[str, float]:
        """Mean of each metric over the images that have it, as the papers average; absent where none has."""
        means = {}
        for metric in self.metrics:
            values = [image.scores[metric] for image in self.of(candidate) if metric in image.scores]
            if values:
                means[metric] = math.fsum(values) / len(values)
        return means

    def whole_mean(self, candidate: str) -> dict[str, float]:
        """`mean` of the metrics that were measured on every image of the data set."""
        return {metric: value for metric, value in self.mean(candidate).items() if self.is_whole(candidate, metric)}

    def is_whole(self, candidate: str, metric: str) -> bool:
        """Whether a metric was measured on every image of the data set."""
        return sum(metric in image.scores for image in self.of(candidate)) == len(self.dataset)

    def seconds(self, candidate: str) -> float:
        """Mean time of an image; the candidate was measured."""
        times = [image.seconds for image in self.of(candidate)]
        return math.fsum(times) / len(times)


@dataclass
class Run:
    """Everything one call of test or benchmark measured.

    Attributes:
        title: the experiment's name, or the suite's title.
        candidates: in the order of the tables, the unrestored input first.
        folder: for the score cache, the restored images and the reports.
        conditions: what holds for all results, by what it is: {"tiles": "whole images"}.
        suite: whose printed figures stand beside the measured ones; None for none.
        self_ensemble: whether networks give the mean over the eight flips and turns of an image.
        reference: the printed row that networks are compared with which were not printed themselves; None for the first
            one of the suite that belongs to a network of this project.
        sets: in the order they were measured.
        missing: why a set could not be measured at all, by its name.
    """

    title: str
    candidates: Sequence[Candidate]
    folder: Path
    conditions: Mapping[str, str] = field(default_factory=dict)
    suite: Suite | None = None
    self_ensemble: bool = False
    reference: str | None = None
    sets: list[SetResult] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def levels(self) -> list[int]:
        """Levels at which anything was measured."""
        return list(dict.fromkeys(each.level for each in self.sets if any(each.images.values())))

    def sets_at(self, level: int) -> list[SetResult]:
        """Sets of which anything was measured at a level."""
        return [each for each in self.sets if each.level == level and any(each.images.values())]

    def candidates_at(self, level: int) -> list[Candidate]:
        """Candidates of which anything was measured at a level."""
        names = {name for each in self.sets_at(level) for name, images in each.images.items() if images}
        return [candidate for candidate in self.candidates if candidate.name in names]

    def degree(self, level: int) -> str:
        """``x4``, ``sigma 25``; empty without a suite, where a run has one level."""
        return self.suite.degree(level) if self.suite else ""

    def images(self) -> list[ImageResult]:
        """Every result."""
        return [image for each in self.sets for name in each.images for image in each.of(name)]

    def failed(self) -> list[str]:
        """Why images could not be measured, one line each."""
        return [line for each in self.sets for line in each.failed]

    @property
    def is_complete(self) -> bool:
        """Whether everything that was planned was measured."""
        return not self.missing and not self.failed()

    def machines(self) -> list[str]:
        """Every machine and version the measurements were made with; one, unless the run was moved."""
        return sorted({image.machine for image in self.images()})
