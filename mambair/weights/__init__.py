"""Weights of networks: files read and written, the network they belong to, published names, the packaged files.

``read`` and ``write`` are looked up when they are first used, so that importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambair.weights.checkpoint import read_checkpoint as read
    from mambair.weights.checkpoint import write_checkpoint as write

__all__ = ["read", "write"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("mambair.weights.checkpoint"), f"{name}_checkpoint")
    raise AttributeError(f"module 'mambair.weights' has no attribute {name!r}")
