"""MambaIR: image restoration with state-space networks, on any machine.

Importing this package is free: the public names below are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mambair.inference.restorer import Restorer as Restorer
    from mambair.weights.catalogue import list_networks as list_networks
    from mambair.weights.loading import create as create
    from mambair.weights.loading import load as load

_PUBLIC = {
    "Restorer": "mambair.inference.restorer",
    "create": "mambair.weights.loading",
    "list_networks": "mambair.weights.catalogue",
    "load": "mambair.weights.loading",
}

__all__ = ["Restorer", "__version__", "create", "list_networks", "load"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mambair' has no attribute {name!r}")
