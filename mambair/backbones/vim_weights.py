"""Weights of Vision Mamba: a network is recognised from its weights, and they are fitted to another image size."""

from __future__ import annotations

from math import isqrt
from typing import Any, Literal

from torch import Tensor

from mambair.archs.detectors import Weights, count, register_detector, shortest_ratio
from mambair.backbones.position_embedding import ClassToken, resize_position_embedding
from mambair.backbones.vim import VisionMamba

PUBLISHED_SIDES = (224, 384)  # of the images of released weights, with overlapping patches or without


@register_detector("VisionMamba", r"patch_embed\.proj\.weight", r"layers\.0\.mixer\.A_log", r"layers\.0\.norm\.weight")
def detect_vim(weights: Weights) -> dict[str, Any] | None:
    """The arguments of VisionMamba that its weights tell.

    They do not tell where a single class token stands (the middle is taken, as in all released weights), what is done
    without one ("mean"), pairs of blocks, and image size and stride beyond the number of patches.
    """
    depth = count(weights, r"layers\.(\d+)\.")
    if not depth or "norm_f.weight" not in weights:
        return None
    dim, channels, patch_size, _ = weights["patch_embed.proj.weight"].shape
    mixer = "layers.0.mixer."
    inner, state = weights[mixer + "A_log"].shape
    head = weights.get("head.weight")
    double = "cls_token_head" in weights
    single = "cls_token" in weights
    img_size, stride = _detect_grid(weights, patch_size, 2 if double else int(single))
    return {
        "img_size": img_size,
        "patch_size": patch_size,
        "stride": stride,
        "depth": depth,
        "embed_dim": dim,
        "d_state": state,
        "channels": channels,
        "num_classes": 0 if head is None else head.shape[0],
        "ssm_cfg": _detect_mixer(weights, mixer, dim, inner),
        "rms_norm": "norm_f.bias" not in weights,
        "if_abs_pos_embed": "pos_embed" in weights,
        "if_rope": "rope.freqs_cos" in weights,
        "bimamba_type": "v2" if mixer + "D_b" in weights else "v1" if mixer + "A_b_log" in weights else "none",
        "if_cls_token": single or double,
        "use_double_cls_token": double,
        "final_pool_type": "mean",
        "init_layer_scale": 1.0 if mixer + "gamma" in weights else None,
    }


def _detect_mixer(weights: Weights, mixer: str, dim: int, inner: int) -> dict[str, Any] | None:
    """What differs from the mixer's defaults."""
    rank = weights[mixer + "dt_proj.weight"].shape[1]
    found = {
        "d_conv": (weights[mixer + "conv1d.weight"].shape[-1], 4),
        "expand": (shortest_ratio((dim, inner)), 2),
        "dt_rank": (rank, -(-dim // 16)),
        "conv_bias": (mixer + "conv1d.bias" in weights, True),
        "bias": (mixer + "in_proj.bias" in weights, False),
    }
    return {name: value for name, (value, default) in found.items() if value != default} or None


def _detect_grid(weights: Weights, patch_size: int, class_tokens: int) -> tuple[int, int]:
    """Side of the image and stride; several pairs give the same number of patches, published ones are preferred."""
    if "pos_embed" in weights:
        patches = weights["pos_embed"].shape[1] - class_tokens
    elif "rope.freqs_cos" in weights:
        patches = weights["rope.freqs_cos"].shape[0]
    else:
        return 224, patch_size
    side = isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patches are no square grid")
    overlapping = (side - 1) * (patch_size // 2) + patch_size
    if side * patch_size not in PUBLISHED_SIDES and overlapping in PUBLISHED_SIDES:
        return overlapping, patch_size // 2
    return side * patch_size, patch_size


def fit_position_embedding(
    weights: Weights, net: VisionMamba, *, rule: Literal["correct", "official"] = "correct"
) -> dict[str, Tensor]:
    """Weights of one image size -> weights for the image size of ``net``.

    Args:
        weights: of a VisionMamba for square images with the same class tokens as ``net``.
        net: decides the new grid.
        rule: "correct" keeps the row of a middle class token in the middle. "official" takes the first row for the
            class token's, wherever it is, as Vim's fine-tuning code does.

    Returns:
        The same tensors, ``pos_embed`` resized (bicubic), and without those of a rotary embedding, which ``net`` has.

    Raises:
        ValueError: the weights have no ``pos_embed``, or its rows do not fit.
    """
    if "pos_embed" not in weights:
        raise ValueError("the weights have no pos_embed, there is nothing to fit")
    extra = {"none": 0, "double": 2}.get(net.class_token, 1)
    place: ClassToken = "first"
    if extra == 2:
        place = "ends"
    elif rule == "correct" and net.class_token == "middle":
        place = "middle"
    rows, columns = net.patch_embed.grid_size
    fitted = resize_position_embedding(weights["pos_embed"], (rows, columns), extra_tokens=extra, class_token=place)
    return {name: t for name, t in weights.items() if not name.startswith("rope.")} | {"pos_embed": fitted}
