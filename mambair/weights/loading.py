"""``mambair.load(path)``: a network with its weights, recognised by what the file holds and never by its name."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs import BuildError, build, detectors
from mambair.registry import ARCH_REGISTRY
from mambair.system.console import printable
from mambair.weights.checkpoint import (
    ARCH_KEY,
    KWARGS_KEY,
    Checkpoint,
    CheckpointError,
    compare,
    load_weights,
    read_checkpoint,
)

LARGEST_ARGUMENT = 1 << 16  # no size, count or factor of a network comes near it
SHOWN_NAMES = 4


def load(path: str | PathLike[str], *, param_key: str | None = None) -> nn.Module:
    """Read weights and build the network they belong to.

    The architecture and its arguments come from the metadata of a .safetensors file where it has some, else from names
    and shapes of the tensors, through the detectors that stand beside the architectures.

    Args:
        path: a .safetensors, .pth, .pt or .ckpt file, see ``mambair.weights.checkpoint.read_checkpoint``.
        param_key: which entry of a .pth holds the weights; None takes the first of params_ema, params, model,
            state_dict.

    Returns:
        The network on the CPU in float32, in eval mode, with ``in_chans`` and, if it restores images, ``upscale``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file cannot be read, belongs to no network known here, or does not fit the one it names.
    """
    checkpoint = read_checkpoint(path, param_key)
    arch, kwargs = recognise(checkpoint)
    net = build_empty(checkpoint, arch, kwargs)
    return fill(net, checkpoint, arch, kwargs).eval()


def build_empty(checkpoint: Checkpoint, arch: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build the network ``arch`` with ``kwargs`` on the meta device, where it takes no memory.

    Raises:
        CheckpointError: the arguments are out of range for this checkpoint, or the class refuses them.
    """
    _refuse_absurd(checkpoint, arch, kwargs)
    return _build(checkpoint, arch, kwargs, device="meta")


def fill(net: nn.Module, checkpoint: Checkpoint, arch: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Give the weights of a checkpoint to a network of `build_empty`, in float32 on the CPU.

    Raises:
        CheckpointError: the weights do not fit exactly; all differences are listed.
    """
    weights = detectors.with_present_names(arch, checkpoint.state_dict)
    report = compare(net, weights)
    if report:
        raise CheckpointError(
            f"{checkpoint.source}: taken for {arch}({_arguments(kwargs)}), but the weights do not fit it:\n{report}"
        )
    net.load_state_dict({name: _in_float32(tensor) for name, tensor in weights.items()}, assign=True)
    if any(tensor.is_meta for tensor in (*net.parameters(), *net.buffers())):  # it has buffers outside the state dict
        net = _build(checkpoint, arch, kwargs)
        load_weights(net, weights)
    return net


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
        raise CheckpointError(f"{checkpoint.source}: its metadata names the architecture {arch!r}; known: {known}")
    text = checkpoint.metadata.get(KWARGS_KEY, "{}")
    try:
        kwargs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{checkpoint.source}: {KWARGS_KEY} in its metadata is not JSON ({error})") from error
    if not isinstance(kwargs, dict):
        raise CheckpointError(
            f"{checkpoint.source}: {KWARGS_KEY} in its metadata is not a table of arguments: {text[:80]!r}"
        )
    accepted = inspect.signature(ARCH_REGISTRY.get(arch)).parameters
    unknown = [name for name in kwargs if name not in accepted]
    if unknown:
        given = printable(", ".join(unknown))
        raise CheckpointError(f"{checkpoint.source}: its metadata gives {arch} {given}; it takes {', '.join(accepted)}")
    return arch, kwargs


def _refuse_absurd(checkpoint: Checkpoint, arch: str, kwargs: Mapping[str, Any]) -> None:
    """Stop before a made-up argument costs hours or memory: sizes are bounded, counts by the tensors there are."""
    tensors = len(checkpoint.state_dict)
    for name, value in kwargs.items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, (int, float))]
        if any(not abs(n) <= LARGEST_ARGUMENT for n in numbers) or (isinstance(value, list) and len(value) > tensors):
            raise CheckpointError(f"{checkpoint.source}: {arch} with {name}={str(value)[:80]} is absurd; refused")
    for name in ("depth", "depths", "num_blocks"):
        blocks = kwargs.get(name, ())
        if sum(n for n in (blocks if isinstance(blocks, list) else [blocks]) if isinstance(n, int)) > tensors:
            raise CheckpointError(f"{checkpoint.source}: {name}={blocks} for {tensors} tensors is absurd; refused")


def _build(checkpoint: Checkpoint, arch: str, kwargs: Mapping[str, Any], device: str | None = None) -> nn.Module:
    try:
        return build(arch, kwargs, device=device)
    except BuildError as error:
        raise CheckpointError(f"{checkpoint.source}: {error}") from error


def _in_float32(tensor: Tensor) -> Tensor:
    """A contiguous copy: tensors of a .safetensors file live in the mapped file, which may change under the network."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _arguments(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())


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
        lacking = [pattern.replace("\\", "") for pattern in near[0].lacking(names)]
        reason = f"it lacks a tensor like {' and '.join(lacking)}" if lacking else "but the shapes are not its shapes"
        lines.append(f"  nearest: {near[0].arch}; {reason}")
    return "\n".join(lines)
