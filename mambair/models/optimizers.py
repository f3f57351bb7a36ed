"""Optimisers of an option file's ``optim_g`` block, and which parameters weight decay leaves alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
}
STATE_SPACE_PARAMETERS = frozenset({"A_logs", "A_log", "Ds", "D"})


class OptimizerError(ValueError):
    """An ``optim_g`` block that cannot be used."""


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay should pull this parameter towards zero.

    Matrices and convolution kernels do. Norms, biases (also two-dimensional ones like SS2D's ``dt_projs_bias`` and
    relative position tables), scales, and the state-space A and D, for which zero means nothing special, do not; nor
    does anything marked ``_no_weight_decay``, the mark the Mamba papers' code sets.
    """
    leaf = name.rpartition(".")[2]
    return not (
        parameter.ndim <= 1
        or getattr(parameter, "_no_weight_decay", False)
        or leaf in STATE_SPACE_PARAMETERS
        or "bias" in leaf
        or "scale" in leaf
    )


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Two groups: the parameters that decay and, with ``weight_decay`` 0, those that do not; empty ones are left out.

    Parameters with ``requires_grad=False`` are in neither.
    """
    trained = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for name, parameter in trained if decays(name, parameter)]},
        {"params": [parameter for name, parameter in trained if not decays(name, parameter)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(opt: Mapping[str, Any], net: nn.Module) -> torch.optim.Optimizer:
    """Build Adam, AdamW or SGD over the trainable parameters of ``net``.

    Adam keeps one group, as its L2 term is part of the published recipes' meaning; AdamW and SGD get the two groups of
    `parameter_groups`.

    Raises:
        OptimizerError: an unknown type, an argument it does not have, or nothing to train.
    """
    name = opt.get("type")
    if name not in OPTIMIZERS:
        raise OptimizerError(f"optimiser type must be one of {', '.join(OPTIMIZERS)}, found {name!r}")
    arguments = {key: value for key, value in opt.items() if key != "type"}
    known = list(inspect.signature(OPTIMIZERS[name]).parameters)[1:]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise OptimizerError(f"optimiser {name} has no argument {', '.join(unknown)}; it has {', '.join(known)}")
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not trained:
        raise OptimizerError("the network has no parameter with requires_grad=True: nothing to train")
    if "betas" in arguments:
        arguments["betas"] = tuple(arguments["betas"])
    return OPTIMIZERS[name](trained if name == "Adam" else parameter_groups(net), **arguments)
