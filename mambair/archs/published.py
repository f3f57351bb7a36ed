"""The published restoration networks by name: arguments, sizes, printed costs (networks.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mambair.system.bounded_reader import read_json

TABLE = Path(__file__).with_name("networks.json")


@dataclass(frozen=True)
class PublishedNetwork:
    """A family of published networks that differ in the factor of enlargement, or in their weights alone.

    Attributes:
        family: ``MambaIR-light``.
        arch: the registered class.
        kwargs: its arguments, without ``upscale``.
        parameters: exact number of parameters for each factor of enlargement; 1 for networks that keep the size.
        levels: noise levels (of 255) or JPEG qualities, each of which has weights of its own; empty for others.
        alias: the family's name in the tables of the papers, where that differs.
        giga_macs: printed multiply-accumulates in 10^9 for 1280 x 720 pixels of output, where they were printed.
    """

    family: str
    arch: str
    kwargs: Mapping[str, Any]
    parameters: Mapping[int, int]
    levels: tuple[int, ...] = ()
    alias: str | None = None
    giga_macs: Mapping[int, float] = field(default_factory=dict)

    def arguments(self, factor: int) -> dict[str, Any]:
        """The arguments for one factor of enlargement, a key of ``parameters``."""
        return {**self.kwargs, **({"upscale": factor} if factor > 1 else {})}

    def names(self) -> dict[str, int]:
        """The full names and the factor of each: ``MambaIR-light-x2``, ``MambaIR-color-dn-15``."""
        return self._with_endings(self.family)

    def aliases(self) -> dict[str, str]:
        """Further names and the full name of each: those of the tables, and the family where there are levels."""
        full_names = list(self.names())
        other = dict(zip(self._with_endings(self.alias), full_names, strict=True)) if self.alias else {}
        return other | ({self.family: full_names[0]} if self.levels else {})

    def _with_endings(self, stem: str) -> dict[str, int]:
        if self.levels:
            return {f"{stem}-{level}": 1 for level in self.levels}
        return {stem if factor == 1 else f"{stem}-x{factor}": factor for factor in self.parameters}


@lru_cache(maxsize=1)
def networks() -> dict[str, PublishedNetwork]:
    """Every family of published networks by its name."""
    content = read_json(TABLE)
    return {
        family: PublishedNetwork(
            family,
            entry["arch"],
            entry["kwargs"],
            {int(factor): count for factor, count in entry["parameters"].items()},
            tuple(entry.get("levels", ())),
            entry.get("alias"),
            {int(factor): macs for factor, macs in entry.get("giga_macs", {}).items()},
        )
        for family, entry in content["networks"].items()
    }


def family_with(parameters: int) -> str | None:
    """The name of the family that has a network of exactly that many parameters; None if there is none."""
    return next((n.family for n in networks().values() if parameters in n.parameters.values()), None)
