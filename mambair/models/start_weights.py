"""The weights that a training starts from, ``path.pretrain_network_g``: read, and refused if they are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mambair.options.errors import made_of
from mambair.weights.checkpoint import Checkpoint, read_checkpoint


def read_start_weights(opt: Mapping[str, Any], param_key: str | None, label: str = "g") -> Checkpoint | None:
    """The weights that checked options name for ``network_<label>``, or None where they name none.

    Raises:
        SettingError: the file cannot be read, or holds NaN or infinity.
    """
    path = opt["path"].get(f"pretrain_network_{label}")
    if not path:
        return None
    with made_of("path", f"pretrain_network_{label}"):
        return read_checkpoint(path, param_key=param_key)
