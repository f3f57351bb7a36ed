"""All published networks by name: ``find`` says what a name stands for, ``list_networks`` lists the names."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mambair.archs.published import PublishedNetwork, networks
from mambair.system.errors import RequestError

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class NetworkSpec:
    """What one name stands for.

    Attributes:
        name: the full name.
        arch, kwargs: the registered class and its arguments.
        family: the family of a restoration network, with its sizes and printed costs; None for a backbone.
    """

    name: str
    arch: str
    kwargs: Mapping[str, Any]
    family: PublishedNetwork | None = None


def list_networks(pattern: str = "*") -> list[str]:
    """List the names of published networks, sorted.

    Args:
        pattern: ``*`` stands for any characters and ``?`` for one: ``"MambaIRv2-*-x4"``; upper and lower case are
            the same.
    """
    return sorted(name for name in _specs() if fnmatch.fnmatchcase(name.lower(), pattern.lower()))


def find(name: str) -> NetworkSpec:
    """Return what a name stands for; upper and lower case are the same.

    Raises:
        RequestError: no published network has this name.
    """
    specs = {known.lower(): spec for known, spec in _specs().items()}
    for family in networks().values():
        specs |= {alias.lower(): specs[full.lower()] for alias, full in family.aliases().items()}
    if name.lower() not in specs:
        near = [known for known in specs if name and name.lower() in known][:SHOWN]
        near = near or difflib.get_close_matches(name.lower(), specs, n=SHOWN, cutoff=0.5)
        shown = ", ".join(dict.fromkeys(specs[key].name for key in near))
        advice = f"nearest: {shown}" if near else "mambair.list_networks() lists the names"
        raise RequestError(f"no published network is named {name!r}; {advice}")
    return specs[name.lower()]


@lru_cache(maxsize=1)
def _specs() -> dict[str, NetworkSpec]:
    from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS  # registers the backbones; may import timm

    specs = {
        name: NetworkSpec(name, family.arch, family.arguments(factor), family)
        for family in networks().values()
        for name, factor in family.names().items()
    }
    specs |= {name: NetworkSpec(name, "VisionMamba", kwargs) for name, kwargs in VIM_MODELS.items()}
    return specs | {name: NetworkSpec(name, "VSSM", kwargs) for name, kwargs in VMAMBA_MODELS.items()}
