"""Which network a file of weights belongs to: by its metadata, else by names and shapes of its tensors."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from mambair.archs import detectors
from mambair.registry import ARCH_REGISTRY
from mambair.system.bounded_reader import parse_json
from mambair.system.console import printable
from mambair.weights.checkpoint import ARCH_KEY, KWARGS_KEY, Checkpoint, CheckpointError

SHOWN_NAMES = 4


def recognise(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The registered name of the architecture, and the arguments that build it.

    Raises:
        CheckpointError: nothing fits (the message says what was seen and what comes nearest), or the metadata is not
            ours.
    """
    if ARCH_KEY in checkpoint.metadata:
        return _from_metadata(checkpoint)
    found = detectors.detect(checkpoint.state_dict)
    if found is None:
        _know_backbones()
        found = detectors.detect(checkpoint.state_dict)
    if found is None:
        raise CheckpointError(_unknown(checkpoint))
    return found


def _know_backbones() -> None:
    """Register the backbones and their detectors, only when they are needed: timm comes in where it is installed."""
    importlib.import_module("mambair.backbones")


def _from_metadata(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    arch = checkpoint.metadata[ARCH_KEY]
    if not ARCH_REGISTRY.is_ours(arch):
        _know_backbones()
    if not ARCH_REGISTRY.is_ours(arch):
        known = ", ".join(ARCH_REGISTRY.keys())
        raise CheckpointError(
            f"{checkpoint.source}: its metadata names the architecture {arch!r}; known: {known}; "
            "your own comes in by --import"
        )
    text = checkpoint.metadata.get(KWARGS_KEY, "{}")
    try:
        kwargs = parse_json(text)
    except ValueError as error:
        raise CheckpointError(
            f"{checkpoint.source}: {KWARGS_KEY} in its metadata is no JSON object of arguments ({error}): {text[:80]!r}"
        ) from error
    accepted = inspect.signature(ARCH_REGISTRY.get(arch)).parameters
    unknown = [name for name in kwargs if name not in accepted]
    if unknown:
        given = printable(", ".join(unknown))
        raise CheckpointError(f"{checkpoint.source}: its metadata gives {arch} {given}; it takes {', '.join(accepted)}")
    return arch, kwargs


def _unknown(checkpoint: Checkpoint) -> str:
    names = list(checkpoint.state_dict)
    shown = ", ".join(f"{name} {list(checkpoint.state_dict[name].shape)}" for name in names[:SHOWN_NAMES])
    lines = [
        f"{checkpoint.source}: these weights belong to none of {', '.join(d.arch for d in detectors.DETECTORS)}.",
        f"  seen: {len(names)} tensors: {shown}{' ...' if len(names) > SHOWN_NAMES else ''}",
    ]
    near = detectors.nearest(checkpoint.state_dict)
    if near is None:
        lines.append("  nearest: none of them, not a single tensor has a known name")
    else:
        lacking = [pattern.replace(r"\d+", "N").replace("\\", "") for pattern in near[0].lacking(names)]
        reason = f"it lacks a tensor like {' and '.join(lacking)}" if lacking else "but the shapes are not its shapes"
        lines.append(f"  nearest: {near[0].arch}; {reason}")
    return "\n".join(lines)
