"""How a network is recognised from its weights: each architecture adds one detector to this list, beside its class."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

Weights = Mapping[str, Tensor]
Detect = Callable[[Weights], "dict[str, Any] | None"]
Rename = Callable[[Weights], "dict[str, Tensor]"]


@dataclass(frozen=True)
class Detector:
    """How one architecture is recognised.

    Attributes:
        arch: the registered name of the class.
        hallmarks: patterns of tensor names that the weights of this architecture have; ``nearest`` counts them.
        detect: weights -> arguments of the class, or None when the weights are another network's.
        rename: weights under the names of older files -> the same under the present names, which hallmarks and
            ``detect`` are about.
    """

    arch: str
    hallmarks: tuple[re.Pattern[str], ...]
    detect: Detect
    rename: Rename = dict

    def resemblance(self, names: Iterable[str]) -> float:
        """The share of the hallmarks that are found among ``names``, 0 to 1."""
        return 1.0 - len(self.lacking(names)) / len(self.hallmarks)

    def lacking(self, names: Iterable[str]) -> list[str]:
        """The hallmarks that are not found among ``names``."""
        names = list(names)
        return [mark.pattern for mark in self.hallmarks if not any(mark.match(name) for name in names)]


DETECTORS: list[Detector] = []


def register_detector(arch: str, *hallmarks: str, rename: Rename = dict) -> Callable[[Detect], Detect]:
    """Put the decorated function into the list as the detector of ``arch``.

    Args:
        arch: the registered name of the class.
        hallmarks: regular expressions, matched at the start of tensor names; all must be found before the function is
            called.
        rename: see ``Detector``.
    """
    patterns = tuple(re.compile(mark) for mark in hallmarks)

    def add(detect: Detect) -> Detect:
        DETECTORS.append(Detector(arch, patterns, detect, rename))
        return detect

    return add


def detect(weights: Weights) -> tuple[str, dict[str, Any]] | None:
    """The architecture and arguments of ``weights`` by the first detector that knows them, or None."""
    for detector in DETECTORS:
        try:
            renamed = detector.rename(weights)
            kwargs = detector.detect(renamed) if detector.resemblance(renamed) == 1.0 else None
        except (IndexError, KeyError, ValueError, ZeroDivisionError):  # a tensor it builds on has an odd shape
            continue
        if kwargs is not None:
            return detector.arch, kwargs
    return None


def with_present_names(arch: str, weights: Weights) -> dict[str, Tensor]:
    """``weights`` under the names that the class ``arch`` has for them today."""
    rename = next((detector.rename for detector in DETECTORS if detector.arch == arch), dict)
    return rename(weights)


def nearest(weights: Weights) -> tuple[Detector, float] | None:
    """The detector with the largest share of its hallmarks in ``weights`` and that share; None if there is no trace."""
    ranked = [(detector, detector.resemblance(weights)) for detector in DETECTORS]
    best = max(ranked, key=lambda entry: entry[1], default=None)
    return best if best is not None and best[1] > 0.0 else None


def count(weights: Weights, pattern: str) -> int | None:
    """How many different numbers the one group of ``pattern`` takes in the names; None unless they are 0, 1, 2, ..."""
    matches = (re.match(pattern, name) for name in weights)
    found = {int(match.group(1)) for match in matches if match}
    return len(found) if found == set(range(len(found))) else None


def prefixes(weights: Weights, pattern: str) -> list[str]:
    """What ``pattern`` matches at the start of names, each once, in the order of the file."""
    matches = (re.match(pattern, name) for name in weights)
    return list(dict.fromkeys(match.group() for match in matches if match))


def shortest_ratio(*sizes: tuple[int, int]) -> float:
    """The decimal number with the fewest digits whose product with each whole, truncated, is its part.

    Args:
        sizes: pairs (whole, part), from different widths of one network.

    Raises:
        ValueError: no number fits all of them.
    """
    whole, part = max(sizes, key=lambda size: Fraction(size[1], size[0]))
    for digits in range(17):
        lowest = -(-part * 10**digits // whole)
        for numerator in (lowest, lowest + 1):  # the product of the first may lie just below the part
            ratio = round(numerator / 10**digits, digits)
            if all(int(ratio * whole) == part for whole, part in sizes):
                return ratio
    raise ValueError(f"no ratio fits all of {sizes}")
