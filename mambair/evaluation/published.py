"""The results that the papers printed for the test sets (results.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mambair.system.bounded_reader import read_json

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Score:
    """One cell of a paper's table: PSNR in dB, and SSIM where it was printed."""

    psnr: float
    ssim: float | None


@dataclass(frozen=True)
class PublishedMethod:
    """One row of a paper's table.

    Attributes:
        name: of the row.
        about: where it comes from.
        network: family of the network (``mambair.archs.published``); None for networks of other projects.
        scores: by data set.
        self_ensemble: whether it is the mean over the eight flips and turns of the image.
    """

    name: str
    about: str
    network: str | None
    scores: Mapping[str, Score]
    self_ensemble: bool = False


def methods(suite: str, level: int) -> list[PublishedMethod]:
    """The rows that were printed for a suite ("classic-sr", ...) at a scale, noise level or quality; maybe none."""
    content = _read()
    rows = content["suites"].get(suite, {}).get(str(level), {})
    return [
        PublishedMethod(
            name,
            content["methods"][name]["about"],
            content["methods"][name].get("network"),
            {dataset: Score(*values) for dataset, values in scores.items()},
            content["methods"][name].get("self_ensemble", False),
        )
        for name, scores in rows.items()
    ]


@lru_cache(maxsize=1)
def _read() -> dict[str, Any]:
    return read_json(FOLDER / "results.json")
