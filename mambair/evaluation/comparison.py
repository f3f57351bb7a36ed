"""The printed figures that may stand beside measured ones: same protocol, whole set, same use of self-ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mambair.archs.published import networks
from mambair.evaluation import published
from mambair.evaluation.candidates import Candidate
from mambair.evaluation.published import PublishedMethod, Score
from mambair.evaluation.results import Metrics, Run, SetResult


@dataclass(frozen=True)
class Comparison:
    """A measured mean beside a printed one.

    Attributes:
        reference: whose printed figure it is.
        is_same: whether the network measured is the one that was printed.
        printed: its figures.
        psnr, ssim: ours minus the printed one; ``ssim`` is None where it was not printed.
    """

    reference: str
    is_same: bool
    printed: Score
    psnr: float
    ssim: float | None

    @property
    def relation(self) -> str:
        """``is_same`` in words."""
        return "the same network" if self.is_same else "another network"


def printed_rows(run: Run, result: SetResult) -> list[PublishedMethod]:
    """The printed rows that belong into the column of a measured set, see `why_not_printed`."""
    if run.suite is None or why_not_printed(run, result):
        return []
    rows = published.methods(run.suite.name, result.level)
    return [row for row in rows if result.name in row.scores and row.self_ensemble == run.self_ensemble]


def why_not_printed(run: Run, result: SetResult) -> str:
    """Why no printed figure may stand beside the results of a set; empty if some may, or the suite has none."""
    if run.suite is None or not run.suite.printed_levels:
        return ""
    if not _is_same_protocol(result.metrics, run.suite.metrics(result.level)):
        return "measured by another protocol than the published one"
    measured = min((len(images) for images in result.images.values() if images), default=0)
    if result.published_images != len(result.dataset) or measured < len(result.dataset):
        return f"{measured} images of the {result.published_images} of the published set"
    rows = published.methods(run.suite.name, result.level)
    if rows and not any(row.self_ensemble == run.self_ensemble for row in rows):
        return f"nothing was published {'with' if run.self_ensemble else 'without'} self-ensemble"
    return ""


def printed_at(run: Run, level: int) -> dict[str, list[PublishedMethod]]:
    """`printed_rows` of every set of a level, by the name of the set."""
    return {result.name: printed_rows(run, result) for result in run.sets_at(level)}


def compare(run: Run, result: SetResult, candidate: Candidate) -> Comparison | None:
    """The printed figure that belongs to a measured network; None for other candidates, or where there is none."""
    mean = result.whole_mean(candidate.name)
    if candidate.parameters is None or not {"psnr", "ssim"} <= mean.keys():
        return None
    rows = {row.name: row for row in printed_rows(run, result)}
    own = [row for row in rows.values() if row.network is not None]
    same = [row for row in own if row.network == candidate.published_network]
    chosen = same[0] if same else rows.get(run.reference or "") or (own[0] if own else None)
    if chosen is None:
        return None
    score = chosen.scores[result.name]
    ssim = None if score.ssim is None else mean["ssim"] - score.ssim
    return Comparison(chosen.name, bool(same), score, mean["psnr"] - score.psnr, ssim)


def check_reference(run: Run, levels: Sequence[int]) -> None:
    """Refuse a reference that was not printed.

    Raises:
        ValueError: listing the rows that were printed for the suite at these levels.
    """
    if run.suite is None or run.reference is None:
        return
    known = {row.name for level in levels for row in published.methods(run.suite.name, level)}
    if run.reference not in known:
        rows = (
            f"printed for {run.suite.name} are {', '.join(sorted(known))}"
            if known
            else f"nothing was printed for {run.suite.name}"
        )
        raise ValueError(f"--reference {run.reference}: {rows}")


def parameters_of(row: PublishedMethod, upscale: int) -> int | None:
    """Parameters of the network behind a printed row, where it is one of this project's."""
    network = networks().get(row.network or "")
    return None if network is None else network.parameters.get(upscale)


def _is_same_protocol(first: Metrics, second: Metrics) -> bool:
    """Whether metrics of two option files give the same figures; ``better`` is for whoever compares them."""
    plain = [
        {name: {key: value for key, value in options.items() if key != "better"} for name, options in metrics.items()}
        for metrics in (first, second)
    ]
    return plain[0] == plain[1]
