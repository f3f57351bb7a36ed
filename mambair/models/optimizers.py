"""Optimisers of an option file's ``optim_g`` block, and which parameters weight decay leaves alone."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mambair.models.muon import MuonWithAdamW, split_matrices
from mambair.options.optimizer_library import LIBRARY, library_optimizer
from mambair.registry import arguments_of
from mambair.system.errors import RequestError

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "SGD": torch.optim.SGD,
}
# Muon trains matrices, AdamW the rest: see muon.py
NAMES = (*OPTIMIZERS, "Muon", *LIBRARY)
STATE_SPACE_PARAMETERS = frozenset({"A_logs", "A_log", "Ds", "D"})


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


def parameter_groups(trained: Sequence[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
    """Split into those that decay and, with ``weight_decay`` 0, those that do not; empty groups are left out."""
    groups: list[dict[str, Any]] = [
        {"params": [parameter for name, parameter in trained if decays(name, parameter)]},
        {"params": [parameter for name, parameter in trained if not decays(name, parameter)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    opt: Mapping[str, Any], net: nn.Module, rules: Sequence[Mapping[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Build an optimiser over the trainable parameters of ``net``.

    Adam keeps one group, as its L2 term is part of the published recipes' meaning; the others get the two groups of
    `parameter_groups`.

    Args:
        opt: ``type`` and the arguments of the class.
        net: the network.
        rules: ``train: param_groups``; the parameters of each get groups of their own.

    Raises:
        RequestError: an unknown type, an argument it does not have, nothing to train, or a rule for no parameter.
        MissingLibraryError: an optimiser of pytorch-optimizer, which is not installed.
    """
    name = opt.get("type")
    if name not in NAMES:
        raise RequestError(f"optimiser type must be one of {', '.join(NAMES)}, found {name!r}")
    kind = library_optimizer(name) if name in LIBRARY else OPTIMIZERS.get(name, MuonWithAdamW)
    arguments = arguments_of(opt)
    known = [key for key in list(inspect.signature(kind).parameters)[1:] if key != "kwargs"]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise RequestError(f"optimiser {name} has no argument {', '.join(unknown)}; it has {', '.join(known)}")
    trained = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    if not trained:
        raise RequestError("the network has no parameter with requires_grad=True: nothing to train")
    if "betas" in arguments:
        arguments["betas"] = tuple(arguments["betas"])
    groups: list[dict[str, Any]] = []
    for rule, members in _by_rule(trained, rules):
        own = [{"params": [weight for _, weight in members]}] if name == "Adam" else parameter_groups(members)
        groups += [group | _settings(rule, arguments.get("lr", 1e-3)) for group in own]
    return kind(split_matrices(groups, trained) if name == "Muon" else groups, **arguments)


def _by_rule(
    trained: Sequence[tuple[str, nn.Parameter]], rules: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], list[tuple[str, nn.Parameter]]]]:
    """The parameters of each rule, the first that fits their name, and last those of none; empty ones are left out."""
    members: list[list[tuple[str, nn.Parameter]]] = [[] for _ in (*rules, None)]
    for name, parameter in trained:
        fitting = (place for place, rule in enumerate(rules) if fnmatch.fnmatchcase(name, rule["pattern"]))
        members[next(fitting, len(rules))].append((name, parameter))
    for rule, found in zip(rules, members, strict=False):
        if not found:
            raise RequestError(f"param_groups: no trainable parameter is left for the pattern {rule['pattern']!r}")
    return [(rule, found) for rule, found in zip((*rules, {}), members, strict=True) if found]


def _settings(rule: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """What a rule changes in its groups."""
    if not rule:
        return {}
    own = {} if rule.get("weight_decay") is None else {"weight_decay": rule["weight_decay"]}
    return {**own, "lr": rate * rule.get("lr_mult", 1.0), "freeze_until": rule.get("freeze_until", 0)}
