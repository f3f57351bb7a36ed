"""What the papers printed: networks with their sizes (networks.json) and results on the test sets (results.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class UnknownNetworkError(ValueError):
    """A name that no published network has; the message lists the names."""


@dataclass(frozen=True)
class PublishedNetwork:
    """One network of a paper.

    Attributes:
        name: as the tables have it: ``MambaIR-light``.
        arch: the registered class.
        kwargs: its arguments, without ``upscale``.
        parameters: exact number of parameters for each factor of enlargement; 1 for networks that keep the size.
        giga_macs: printed multiply-accumulates in 10^9 for 1280 x 720 pixels of output, where they were printed.
    """

    name: str
    arch: str
    kwargs: Mapping[str, Any]
    parameters: Mapping[int, int]
    giga_macs: Mapping[int, float] = field(default_factory=dict)

    def arguments(self, upscale: int) -> dict[str, Any]:
        """The arguments for one factor of enlargement.

        Raises:
            UnknownNetworkError: the network was not published with that factor.
        """
        if upscale not in self.parameters:
            factors = ", ".join(map(str, self.parameters))
            raise UnknownNetworkError(f"{self.name} was published for a factor of {factors}, not {upscale}")
        return {**self.kwargs, **({"upscale": upscale} if upscale > 1 else {})}


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
        network: name of its ``PublishedNetwork``; None where that is none of ours.
        scores: by data set.
        self_ensemble: whether it is the mean over the eight flips and turns of the image.
    """

    name: str
    about: str
    network: str | None
    scores: Mapping[str, Score]
    self_ensemble: bool = False


@lru_cache(maxsize=1)
def networks() -> dict[str, PublishedNetwork]:
    """Every published network by name."""
    return {
        name: PublishedNetwork(
            name,
            entry["arch"],
            entry["kwargs"],
            {int(factor): count for factor, count in entry["parameters"].items()},
            {int(factor): macs for factor, macs in entry.get("giga_macs", {}).items()},
        )
        for name, entry in _read("networks.json")["networks"].items()
    }


def find_network(name: str) -> tuple[PublishedNetwork, int]:
    """The network and factor a name means: ``mambair-light-x2``, ``MambaIRUNet``; capitals do not matter.

    Raises:
        UnknownNetworkError: there is none; the message lists all names.
    """
    by_name = {
        label.lower(): (network, factor) for network in networks().values() for label, factor in labels(network).items()
    }
    found = by_name.get(name.lower())
    if found is None:
        known = ", ".join(label for network in networks().values() for label in labels(network))
        raise UnknownNetworkError(f"no published network is called {name!r}; there are {known}")
    return found


def labels(network: PublishedNetwork) -> dict[str, int]:
    """Names with the factor in them, as :func:`find_network` takes them."""
    return {network.name if factor == 1 else f"{network.name}-x{factor}": factor for factor in network.parameters}


def network_with(parameters: int) -> str | None:
    """The name of the published network with exactly that many parameters, if there is one."""
    for network in networks().values():
        if parameters in network.parameters.values():
            return network.name
    return None


def methods(suite: str, level: int) -> list[PublishedMethod]:
    """The rows that were printed for a suite ("classic-sr", ...) at a scale, noise level or quality; maybe none."""
    content = _read("results.json")
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


@lru_cache(maxsize=2)
def _read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))
