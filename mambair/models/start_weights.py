"""The weights that a training starts from, ``path.pretrain_network_g``: read, and refused if they are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mambair.options.errors import made_of
from mambair.weights.checkpoint import Checkpoint, CheckpointError, read_checkpoint


def read_start_weights(opt: Mapping[str, Any], param_key: str | None) -> Checkpoint | None:
    """The weights that checked options name, or None where they name none.

    Raises:
        SettingError: the file cannot be read, or holds NaN or infinity.
    """
    path = opt["path"].get("pretrain_network_g")
    if not path:
        return None
    with made_of("path", "pretrain_network_g"):
        checkpoint = read_checkpoint(path, param_key=param_key)
        for name, tensor in checkpoint.state_dict.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"{path}: {name} holds values that are not finite")
        return checkpoint
