"""The one place where a network is made from a registered name and arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mambair.registry import ARCH_REGISTRY
from mambair.system.tables import first_line

SHOWN = 300  # characters of the arguments in a message


class BuildError(ValueError):
    """A network cannot be built.

    Attributes:
        reason: why, without the name and the arguments.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def build(name: str, kwargs: Mapping[str, Any] | None = None, *, device: str | None = None) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: registered name of the class (``ARCH_REGISTRY``), ours or basicsr's.
        kwargs: arguments of the class.
        device: where its tensors are made; "meta" makes a network without numbers, which takes no memory.

    Raises:
        BuildError: no class has this name, or it refuses the arguments.
    """
    arguments = dict(kwargs or {})
    try:
        network = ARCH_REGISTRY.get(name)
    except KeyError as error:
        raise BuildError(str(error.args[0]), str(error.args[0])) from None
    try:
        with torch.device(device) if device else contextlib.nullcontext():
            return network(**arguments)
    except Exception as error:  # the class may be anyone's code
        reason = first_line(error)
        written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        written = written if len(written) <= SHOWN else written[:SHOWN] + " ..."
        raise BuildError(f"{name}({written}) cannot be built: {reason}", reason) from error
