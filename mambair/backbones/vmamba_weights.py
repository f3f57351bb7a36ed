"""Weights of VMamba: names of older files become the present ones, and a network is recognised from its weights."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from mambair.archs.detectors import Weights, count, register_detector, shortest_ratio

ROUTES = 4  # parameter sets of a scan layer
CLASSIFIER = "classifier."
BACKBONE_ONLY = re.compile(r"outnorm\d+\.")
# names of the first files, then of the single-file version of the network
RENAMED = (
    (re.compile(r"^patch_embed\.proj\."), "patch_embed.0."),
    (re.compile(r"^patch_embed\.norm\."), "patch_embed.2."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.ln_1\."), r"\1.norm."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.self_attention\."), r"\1.op."),
    (re.compile(r"^(norm|head)\."), r"classifier.\1."),
    (re.compile(r"\.op\.(x_proj|dt_projs)\.weight$"), r".op.\1_weight"),
)


def rename_vmamba(weights: Weights) -> dict[str, Tensor]:
    """All three generations of names -> the present one; tensors are reshaped where a generation stored them flat.

    The single-file version stores the projections of the four routes in one matrix, and calls the parts of
    PatchMerging2D ``downsample.1`` (norm) and ``downsample.2`` (linear); in the package ``downsample.1`` is a
    convolution. Linear layers stored as 1 x 1 convolutions lose their last two dimensions.
    """
    if not any(".op." in name or ".self_attention." in name for name in weights):
        return dict(weights)
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stage = re.match(r"(layers\.\d+\.downsample)\.([12])\.", name)
        new = name
        if stage and f"{stage.group(1)}.2.weight" in weights:
            new = f"{stage.group(1)}.{'norm' if stage.group(2) == '1' else 'reduction'}.{name.rsplit('.', 1)[1]}"
        for pattern, replacement in RENAMED:
            new = pattern.sub(replacement, new)
        renamed[new] = _reshape(new, tensor)
    return renamed


def _reshape(name: str, tensor: Tensor) -> Tensor:
    if name.endswith((".x_proj_weight", ".dt_projs_weight")) and tensor.dim() == 2 and tensor.shape[0] % ROUTES == 0:
        return tensor.unflatten(0, (ROUTES, -1))
    linear = name.endswith(("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight", "reduction.weight"))
    if linear and tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)
    return tensor


@register_detector(
    "Backbone_VSSM",
    r"patch_embed\.0\.weight",
    r"layers\.\d+\.blocks\.0\.op\.A_logs",
    rename=rename_vmamba,
)
def detect_backbone_vssm(weights: Weights) -> dict[str, Any] | None:
    """The arguments of Backbone_VSSM that its weights tell."""
    if any(name.startswith((CLASSIFIER, "conv_first.")) for name in weights):
        return None
    kwargs = detect_body(weights)
    return None if kwargs is None else {"out_indices": _numbers(weights, r"outnorm(\d+)\."), **kwargs}


@register_detector(
    "VSSM",
    r"patch_embed\.0\.weight",
    r"layers\.\d+\.blocks\.0\.op\.A_logs",
    r"classifier\.norm\.weight",
    rename=rename_vmamba,
)
def detect_vssm(weights: Weights) -> dict[str, Any] | None:
    """The arguments of VSSM that its weights tell (not the activations and the training-time rates)."""
    kwargs = detect_body(weights)
    if kwargs is None:
        return None
    head = weights.get("classifier.head.weight")
    return {"num_classes": 0 if head is None else head.shape[0], **kwargs}


def detect_body(weights: Weights) -> dict[str, Any] | None:
    """All but the head; None for weights of no supported VMamba (Mamba-2's scan has A_logs of a number a head)."""
    version, dims = _detect_downsampling(weights), _detect_widths(weights)
    depths = [count(weights, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(len(dims))]
    blocks = [f"layers.{i}.blocks.0." for i, depth in enumerate(depths) if depth]
    widths = [dim for dim, depth in zip(dims, depths, strict=True) if depth]
    op = blocks[0] + "op."
    inner = [weights[block + "op.out_proj.weight"].shape[1] for block in blocks]
    if None in depths or weights[op + "A_logs"].shape[0] != ROUTES * inner[0] or weights[op + "Ds"].dim() != 1:
        return None
    gated = weights[op + "in_proj.weight"].shape[0] == 2 * inner[0]
    convolution = weights.get(op + "conv2d.weight")
    kwargs = {
        "in_chans": weights["patch_embed.0.weight"].shape[1],
        "depths": depths,
        "dims": dims,
        "ssm_d_state": weights[op + "A_logs"].shape[1],
        "ssm_ratio": shortest_ratio(*zip(widths, inner, strict=True)),
        "ssm_dt_rank": _detect_rank(weights, blocks, widths),
        "ssm_conv": -1 if convolution is None else convolution.shape[-1],
        "ssm_conv_bias": op + "conv2d.bias" in weights,
        **_detect_mlp(weights, blocks, widths),
        **_detect_patches(weights),
        "downsample_version": version,
    }
    first_generation = gated and not kwargs["mlp_ratio"] and kwargs["patchembed_version"] == "v1"
    batch_norm = blocks[0] + "norm.running_mean" in weights
    kwargs["forward_type"] = "v0" if first_generation else "v05" if gated else "v05_noz"
    kwargs["norm_layer"] = "bn" if batch_norm else "ln" if first_generation else "ln2d"  # ln and ln2d give the same
    return kwargs


def _numbers(weights: Weights, pattern: str) -> list[int]:
    """The numbers that the one group of ``pattern`` takes in the names, in rising order."""
    matches = (re.match(pattern, name) for name in weights)
    return sorted({int(match.group(1)) for match in matches if match})


def _detect_widths(weights: Weights) -> list[int]:
    """Channels of each stage, from the step to it; a stage without blocks leaves no other trace.

    Raises:
        ValueError: the numbers of the stages are out of range.
    """
    overlapping = "patch_embed.5.weight" in weights
    dims = [weights["patch_embed.5.weight" if overlapping else "patch_embed.0.weight"].shape[0]]
    last = max(_numbers(weights, r"(?:layers\.|outnorm)(\d+)\."))
    if last > len(weights):
        raise ValueError(f"{last} is no number of a stage")
    for i in range(last + 1):
        steps = [weights.get(f"layers.{i}.downsample.{name}.weight") for name in ("reduction", "1")]
        step = next((step for step in steps if step is not None), None)
        if step is not None or i < last:
            dims.append(dims[-1] if step is None else step.shape[0])
    return dims


def _detect_rank(weights: Weights, blocks: list[str], widths: list[int]) -> int | str:
    ranks = [weights[block + "op.dt_projs_weight"].shape[2] for block in blocks]
    return "auto" if ranks == [-(-dim // 16) for dim in widths] else ranks[0]


def _detect_mlp(weights: Weights, blocks: list[str], widths: list[int]) -> dict[str, Any]:
    if blocks[0] + "mlp.fc1.weight" not in weights:
        return {"mlp_ratio": 0.0, "gmlp": False}
    hidden = [weights[block + "mlp.fc2.weight"].shape[1] for block in blocks]
    gated = weights[blocks[0] + "mlp.fc1.weight"].shape[0] == 2 * hidden[0]
    return {"mlp_ratio": shortest_ratio(*zip(widths, hidden, strict=True)), "gmlp": gated}


def _detect_patches(weights: Weights) -> dict[str, Any]:
    kernel = weights["patch_embed.0.weight"].shape[-1]
    overlapping = "patch_embed.5.weight" in weights
    patch_size = 2 * (kernel - 1) if overlapping else kernel
    position = weights.get("pos_embed")  # [1, C, H, W]
    return {
        "patch_size": patch_size,
        "patchembed_version": "v2" if overlapping else "v1",
        "patch_norm": "patch_embed.2.weight" in weights,
        "posembed": position is not None,
        "imgsize": 224 if position is None else position.shape[-1] * patch_size,
    }


def _detect_downsampling(weights: Weights) -> str:
    if "layers.0.downsample.reduction.weight" in weights:
        return "v1"
    convolution = weights.get("layers.0.downsample.1.weight")
    if convolution is None:
        return "none"  # or a single stage
    return "v2" if convolution.shape[-1] == 2 else "v3"
