"""``mambair.load(path)``: a network recognised by its weights; ``mambair.create(name)``: a published one."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs import BuildError, build, detectors
from mambair.weights.catalogue import find
from mambair.weights.checkpoint import (
    Checkpoint,
    CheckpointError,
    compare,
    load_weights,
    read_checkpoint,
)
from mambair.weights.fetch import locate, obtain, resolve
from mambair.weights.other_families import load_other_family, spandrel_installed
from mambair.weights.recognition import recognise

LARGEST_ARGUMENT = 1 << 16  # no size, count or factor of a network comes near it


def load(path: str | PathLike[str], *, param_key: str | None = None, allow_nonfinite: bool = False) -> nn.Module:
    """Read weights and build the network they belong to.

    The architecture and its arguments come from the metadata of a .safetensors file where it has some, else from names
    and shapes of the tensors, through the detectors that stand beside the architectures.

    Args:
        path: a file of weights, see ``mambair.weights.checkpoint.read_checkpoint``; or what
            `mambair.weights.fetch.locate` takes: the name of a published network, ``hub:...`` or ``https://...``.
        param_key: which entry of a .pth holds the weights; None takes the first of params_ema, params, model,
            state_dict.
        allow_nonfinite: load weights with NaN or infinite values too, to look at them.

    Networks of other families load through spandrel where that is installed (`mambair.weights.other_families`).

    Returns:
        The network on the CPU in float32, in eval mode, with ``in_chans`` and, if it restores images, ``upscale``.

    Raises:
        FileNotFoundError: there is no such file.
        FetchError: weights that are named cannot be had.
        CheckpointError: the file cannot be read, belongs to no network known here, or does not fit the one it names;
            a tensor holds NaN or infinity.
    """
    checkpoint = read_checkpoint(locate(path), param_key, allow_nonfinite=allow_nonfinite)
    try:
        arch, kwargs = recognise(checkpoint)
    except CheckpointError as error:
        other = load_other_family(checkpoint)
        if other is None:
            raise CheckpointError(f"{error}{_hint()}") from None
        return other.eval()
    net = build_empty(checkpoint, arch, kwargs)
    return fill(net, checkpoint, arch, kwargs).eval()


def create(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Build a published network in training mode, on the CPU.

    Args:
        name: one of ``list_networks()``, or an older name of it; upper and lower case are the same.
        pretrained: with the published weights, from the cache or fetched; otherwise random ones.
        overrides: arguments of its class that replace the published ones: ``embed_dim=48``.

    Raises:
        RequestError: no published network has this name.
        BuildError: the class refuses the arguments.
        FetchError: pretrained, and no address of weights is known, or they cannot be had.
        CheckpointError: pretrained, and the weights do not fit the network with the overrides.
    """
    spec = find(name)
    path = obtain(resolve(spec.name)) if pretrained else None  # before minutes are spent on a large network
    net = build(spec.arch, {**spec.kwargs, **overrides})
    if path is not None:
        load_weights(net, detectors.with_present_names(spec.arch, read_checkpoint(path).state_dict))
    return net


def _hint() -> str:
    return (
        ""
        if spandrel_installed()
        else '\n  networks of other families load where spandrel is: pip install "mambair[spandrel]"'
    )


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
