"""Weights of networks: files read and written, the network they belong to, published names, the packaged files.

The public names are looked up when they are first used, so that importing this package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mambair.weights.checkpoint import read_checkpoint as read
    from mambair.weights.checkpoint import write_checkpoint as write
    from mambair.weights.pretrained import from_pretrained as from_pretrained
    from mambair.weights.pretrained import push_to_hub as push_to_hub
    from mambair.weights.pretrained import save_pretrained as save_pretrained

_PUBLIC = {
    "from_pretrained": ("pretrained", "from_pretrained"),
    "push_to_hub": ("pretrained", "push_to_hub"),
    "read": ("checkpoint", "read_checkpoint"),
    "save_pretrained": ("pretrained", "save_pretrained"),
    "write": ("checkpoint", "write_checkpoint"),
}
__all__ = ["from_pretrained", "push_to_hub", "read", "save_pretrained", "write"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(importlib.import_module(f"mambair.weights.{module}"), attribute)
    raise AttributeError(f"module 'mambair.weights' has no attribute {name!r}")
