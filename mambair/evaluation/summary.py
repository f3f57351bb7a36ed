"""Means over the images of a set, and the printed numbers that belong beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mambair.evaluation import published
from mambair.evaluation.candidates import Candidate
from mambair.evaluation.published import PublishedMethod, Score
from mambair.evaluation.score_cache import Measurement
from mambair.evaluation.suite_run import Results


@dataclass(frozen=True)
class SetScore:
    """A method on a set: means over its images, as the papers average."""

    psnr: float
    ssim: float
    seconds: float
    images: int


@dataclass(frozen=True)
class Comparison:
    """Our mean beside a printed one.

    Attributes:
        reference: whose printed number it is.
        is_same: whether the network measured is the one that was printed, with self-ensemble or without as there.
        relation: the same in words.
        psnr, ssim: ours minus the printed one; None where nothing was printed, or the set is not complete.
        remark: why there is no difference, else empty.
    """

    reference: str
    is_same: bool
    relation: str
    printed: Score
    psnr: float | None
    ssim: float | None
    remark: str


class Summary:
    """What the reports are made of.

    Args:
        results: of a run.
        reference: the printed row that networks are compared with which were not printed themselves; None for the
            first one of the suite that belongs to a network of this project.

    Raises:
        ValueError: no such row was printed for this suite and these levels.
    """

    def __init__(self, results: Results, reference: str | None = None) -> None:
        self.results, self.plan = results, results.plan
        self._reference = reference
        self._groups: dict[tuple[int, str, str], list[Measurement]] = {}
        for each in results.measurements:
            self._groups.setdefault((each.level, each.dataset, each.method), []).append(each)
        known = {row.name for level in self.plan.levels for row in self.printed(level)}
        if reference is not None and reference not in known:
            raise ValueError(
                f"--reference {reference}: printed for {self.plan.suite.name} are {', '.join(sorted(known))}"
            )

    def levels(self) -> list[int]:
        """Levels of which anything was measured."""
        return [level for level in self.plan.levels if self.sets(level)]

    def sets(self, level: int) -> list[str]:
        """Sets of which anything was measured at a level."""
        return [
            name for name in self.plan.sets if any((level, name, m.name) in self._groups for m in self.plan.methods)
        ]

    def methods(self, level: int) -> list[Candidate]:
        """Methods that were measured at a level."""
        names = {method for found, _, method in self._groups if found == level}
        return [method for method in self.plan.methods if method.name in names]

    def images(self, level: int, dataset: str, method: str) -> Sequence[Measurement]:
        """Measurements of a method on the images of a set."""
        return self._groups.get((level, dataset, method), ())

    def cell(self, level: int, dataset: str, method: str) -> SetScore | None:
        """Means, or None where nothing was measured."""
        found = self.images(level, dataset, method)
        if not found:
            return None
        count = len(found)
        psnr, ssim, seconds = (
            math.fsum(getattr(m, field) for m in found) / count for field in ("psnr", "ssim", "seconds")
        )
        return SetScore(psnr, ssim, seconds, count)

    def is_complete(self, level: int, dataset: str, method: str) -> bool:
        """Whether every image of the published set was measured."""
        image_set = self.results.image_sets.get((level, dataset))
        found = len(self.images(level, dataset, method))
        return image_set is not None and image_set.is_complete and found == len(image_set.paths)

    def printed(self, level: int) -> list[PublishedMethod]:
        """What the papers printed for the suite at a level."""
        return published.methods(self.plan.suite.name, level)

    def comparison(self, level: int, dataset: str, method: Candidate) -> Comparison | None:
        """The printed number that belongs to a measured network; None for other methods, or where none was printed."""
        cell = self.cell(level, dataset, method.name)
        if method.parameters is None or cell is None:
            return None
        rows = {row.name: row for row in self.printed(level) if dataset in row.scores}
        own = [row for row in rows.values() if row.network is not None]
        own.sort(key=lambda row: row.self_ensemble != self.plan.self_ensemble)  # stable: like is compared with like
        same = [row for row in own if row.network == method.published_network]
        chosen = same[0] if same else rows.get(self._reference or "") or (own[0] if own else None)
        if chosen is None:
            return None
        score = chosen.scores[dataset]
        is_same = bool(same) and chosen.self_ensemble == self.plan.self_ensemble
        without = "with" if chosen.self_ensemble else "without"
        relation = "the same network" if same else "another network"
        relation += "" if is_same or not same else f" {without} self-ensemble"
        if not self.is_complete(level, dataset, method.name):
            remark = f"{cell.images} images, not the published set"
            return Comparison(chosen.name, is_same, relation, score, None, None, remark)
        ssim = None if score.ssim is None else cell.ssim - score.ssim
        return Comparison(chosen.name, is_same, relation, score, cell.psnr - score.psnr, ssim, "")

    def machines(self) -> list[str]:
        """Every machine and version the measurements were made with; one, unless the run was moved."""
        return sorted({each.machine for each in self.results.measurements})


def parameters_of(row: PublishedMethod, upscale: int) -> int | None:
    """Parameters of the network behind a printed row, where it is one of this project's."""
    network = published.networks().get(row.network or "")
    return None if network is None else network.parameters.get(upscale)
