"""VSSM (VMamba: Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024): classification and feature pyramids."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mambair.backbones.feature_indices import resolve_indices
from mambair.backbones.forward_types import make_scan_layer
from mambair.backbones.position_embedding import resize_grid
from mambair.backbones.vmamba_weights import BACKBONE_ONLY, CLASSIFIER, rename_vmamba
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.drop_path import linear_drop_rates
from mambair.layers.layouts import AsImage, make_norm
from mambair.layers.tokens import as_image
from mambair.layers.vmamba_block import MapMlp, VMambaBlock, downsampling, patch_embedding
from mambair.registry import ARCH_REGISTRY

POOLS = {"avg": partial(nn.AdaptiveAvgPool2d, 1), "max": partial(nn.AdaptiveMaxPool2d, 1), "": nn.Identity}


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network share; the names are VSSM's."""

    norm_layer: str = "ln"
    ssm_d_state: int = 16
    ssm_ratio: float = 2.0
    ssm_dt_rank: int | Literal["auto"] = "auto"
    ssm_act_layer: str = "silu"
    ssm_conv: int = 3
    ssm_conv_bias: bool = True
    ssm_drop_rate: float = 0.0
    ssm_init: Literal["v0", "v1", "v2"] = "v0"
    forward_type: str = "v2"
    mlp_ratio: float = 4.0
    mlp_act_layer: str = "gelu"
    mlp_drop_rate: float = 0.0
    gmlp: bool = False


def make_block(dim: int, options: BlockOptions, *, drop_path: float = 0.0, post_norm: bool = False) -> VMambaBlock:
    """One block of ``dim`` channels."""
    channel_first = options.norm_layer != "ln"
    norm = op = norm2 = mlp = None
    if options.ssm_ratio > 0:
        norm = make_norm(options.norm_layer, dim)
        op = make_scan_layer(
            options.forward_type,
            dim,
            activation=options.ssm_act_layer,
            d_state=options.ssm_d_state,
            d_conv=options.ssm_conv,
            expand=options.ssm_ratio,
            dt_rank=options.ssm_dt_rank,
            dropout=options.ssm_drop_rate,
            conv_bias=options.ssm_conv_bias,
            initialize=options.ssm_init,
            channel_first=channel_first,
        )
    if options.mlp_ratio > 0:
        norm2 = make_norm(options.norm_layer, dim)
        hidden = int(dim * options.mlp_ratio)
        mlp = MapMlp(
            dim,
            hidden,
            options.mlp_act_layer,
            options.mlp_drop_rate,
            gated=options.gmlp,
            channel_first=channel_first,
        )
    return VMambaBlock(norm, op, norm2, mlp, drop_path=drop_path, post_norm=post_norm)


class Stage(nn.Module):
    """The blocks of one resolution, and the step down to the next.

    Args:
        blocks: in order.
        downsample: applied after them.
        use_checkpoint: recompute the blocks in the backward pass.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.use_checkpoint = use_checkpoint

    def run_blocks(self, x: Tensor) -> Tensor:
        """A map -> the same shape."""
        for block in self.blocks:
            x = call_block(block, x, recompute=self.use_checkpoint and self.training)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """A map -> a map of half the sides (the last stage: the same size)."""
        return self.downsample(self.run_blocks(x))


@ARCH_REGISTRY.register()
class VSSM(nn.Module):
    """VMamba for classification: patches -> stages of scan blocks -> normalisation -> mean over the map -> classes.

    Args:
        patch_size: side of the patches.
        in_chans: channels of the image.
        num_classes: classes; 0 for the pooled features instead.
        depths: blocks of each stage.
        dims: channels of each stage, or those of the first; they double then.
        ssm_d_state: state size of the scans.
        ssm_ratio: inner channels of a scan layer over its channels; 0 for blocks without.
        ssm_dt_rank: rank of the step-size projection; "auto" is a sixteenth of the channels.
        ssm_act_layer, mlp_act_layer: "silu", "gelu", "relu" or "sigmoid".
        ssm_conv, ssm_conv_bias: side of the depthwise convolution (below 2: none), whether it has a bias.
        ssm_drop_rate, mlp_drop_rate: dropout rates of the branches.
        ssm_init: how the scans' parameters are drawn, see SS2D.
        forward_type: form of the scan layer, see ``mambair.backbones.forward_types``.
        mlp_ratio: hidden channels of the MLP over its channels; 0 for blocks without.
        gmlp: gated MLP.
        drop_path_rate: highest rate of stochastic depth; rises linearly from 0 over the blocks.
        patch_norm: whether the patches are normalised.
        norm_layer: "ln" (maps are [B, H, W, C]), "ln2d" or "bn" (maps are [B, C, H, W]); upper case is the same.
        downsample_version: "v1", "v2", "v3" or "none", see ``vmamba_block.downsampling``.
        patchembed_version: "v1" or "v2", see ``vmamba_block.patch_embedding``.
        use_checkpoint: activation checkpointing of every block in training.
        posembed: a learned position embedding for images of ``imgsize``; without it any size works.
        imgsize: side of the square image that the position embedding is for; no influence otherwise.
        drop_rate: dropout rate of the features that the classes are told from.

    Raises:
        ValueError: an argument out of its range, or a ``forward_type`` that is not supported.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        ssm_d_state: int = 16,
        ssm_ratio: float = 2.0,
        ssm_dt_rank: int | Literal["auto"] = "auto",
        ssm_act_layer: str = "silu",
        ssm_conv: int = 3,
        ssm_conv_bias: bool = True,
        ssm_drop_rate: float = 0.0,
        ssm_init: Literal["v0", "v1", "v2"] = "v0",
        forward_type: str = "v2",
        mlp_ratio: float = 4.0,
        mlp_act_layer: str = "gelu",
        mlp_drop_rate: float = 0.0,
        gmlp: bool = False,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        norm_layer: str = "LN",
        downsample_version: Literal["v1", "v2", "v3", "none"] = "v2",
        patchembed_version: Literal["v1", "v2"] = "v1",
        use_checkpoint: bool = False,
        posembed: bool = False,
        imgsize: int = 224,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        depths, dims, norm_layer = tuple(depths), _widths(dims, len(depths)), norm_layer.lower()
        self.in_chans, self.num_classes, self.dims, self.num_features = in_chans, num_classes, dims, dims[-1]
        self.head_hidden_size, self.global_pool = dims[-1], "avg"
        self.norm_layer, self.channel_first = norm_layer, norm_layer != "ln"
        scan = (ssm_d_state, ssm_ratio, ssm_dt_rank, ssm_act_layer.lower(), ssm_conv, ssm_conv_bias, ssm_drop_rate)
        mlp = (mlp_ratio, mlp_act_layer.lower(), mlp_drop_rate, gmlp)
        options = BlockOptions(norm_layer, *scan, ssm_init, forward_type, *mlp)
        self.pos_embed = _position_embedding(imgsize // patch_size, dims[0]) if posembed else None
        self.patch_embed = patch_embedding(
            in_chans, dims[0], patch_size, norm_layer, patch_norm=patch_norm, version=patchembed_version
        )
        self.layers = nn.ModuleList()
        for i, rates in enumerate(linear_drop_rates(drop_path_rate, depths)):
            blocks = [make_block(dims[i], options, drop_path=rate) for rate in rates]
            last = i + 1 == len(dims)
            down = nn.Identity() if last else downsampling(dims[i], dims[i + 1], norm_layer, version=downsample_version)
            self.layers.append(Stage(blocks, down, use_checkpoint))
        self.output_fmt = "NCHW" if self.channel_first else "NHWC"  # of forward_features, as timm asks
        self.classifier = _classifier(dims[-1], num_classes, norm_layer, drop_rate)
        first = patch_size if patchembed_version == "v1" else (patch_size // 2) ** 2
        self.feature_info = _feature_info(dims, first, step=1 if downsample_version == "none" else 2)
        self.apply(_initialise)
        self.register_load_state_dict_pre_hook(_rename_and_resize)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W], normalised as the weights ask -> logits [B, num_classes]."""
        return self.classifier(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> the last stage's map, in the network's layout, before the classifier's norm."""
        x = self._embed(x)
        for stage in self.layers:
            x = stage(x)
        return x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of some stages before their downsampling, as timm's feature extraction asks for them.

        Args:
            x: [B, in_chans, H, W].
            indices: which stages; a number n for the last n, None for all; negative ones count from the end.
            norm: normalise the last stage's map with the classifier's norm.
            stop_early: do not run what follows the last of ``indices``.
            output_fmt: "NCHW", the only one.
            intermediates_only: return the list alone.

        Returns:
            [B, C, H / reduction, W / reduction] of each of ``indices`` in rising order; before it, unless
            ``intermediates_only``, the map ``forward_features`` would return (with ``stop_early``, the last one made).

        Raises:
            ValueError: an index out of range, or another format.
        """
        if output_fmt != "NCHW":
            raise ValueError(f'output_fmt must be "NCHW", got {output_fmt!r}')
        wanted = resolve_indices(len(self.layers), indices)
        maps: list[Tensor] = []
        x = self._embed(x)
        for i, stage in enumerate(self.layers):
            x = stage.run_blocks(x)
            if i in wanted:
                maps.append(self._feature_map(i, x, norm))
            if stop_early and i == max(wanted):
                break
            x = stage.downsample(x)
        return maps if intermediates_only else (x, maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of ``forward_features`` -> logits, or the normalised and pooled features with ``pre_logits``."""
        steps = self.classifier[:-1] if pre_logits else self.classifier
        return steps(x)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the features ``indices`` do not need: later stages, and the classifier. Returns the indices."""
        wanted = resolve_indices(len(self.layers), indices)
        self.layers = self.layers[: max(wanted) + 1]
        self.layers[-1].downsample = nn.Identity()
        if prune_norm and prune_head and hasattr(self, "classifier"):
            del self.classifier
        elif prune_head and hasattr(self, "classifier"):
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits."""
        return self.classifier.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh linear layer for another number of classes; 0 for none.

        Args:
            num_classes: of the new layer.
            global_pool: what becomes of the map [B, C, H, W]: its mean ("avg"), its maximum ("max"), or nothing (""),
                so that the outputs are maps, too; None leaves it as it is.

        Raises:
            ValueError: another pool.
        """
        if global_pool is not None:
            if global_pool not in POOLS:
                raise ValueError(f"global_pool must be one of {', '.join(map(repr, POOLS))}, got {global_pool!r}")
            self.global_pool = global_pool
            self.classifier.avgpool = POOLS[global_pool]()
            self.classifier.flatten = nn.Flatten(1) if global_pool else nn.Identity()
        self.num_classes = num_classes
        head = _head(self.num_features, num_classes, pooled=bool(self.global_pool))
        self.classifier.head = head.to(self.patch_embed[0].weight)
        self.classifier.head.apply(_initialise)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch activation checkpointing of every block on or off, under timm's name for ``use_checkpoint``."""
        for stage in self.layers:
            stage.use_checkpoint = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm puts parameters into groups, for learning rates that fall with the depth.

        With ``coarse`` a group is a stage, else a block; a step down and the last norm belong to the block before.
        """
        fine = [
            (r"^layers\.(\d+)\.blocks\.(\d+)", None),
            (r"^layers\.(\d+)\.downsample", (99999,)),
            (r"^classifier\.norm", (99999,)),
        ]
        stages = [(r"^layers\.(\d+)", None), (r"^classifier\.norm", (99999,))]
        return {"stem": r"^patch_embed|pos_embed", "blocks": stages if coarse else fine}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are trained without weight decay."""
        return {"pos_embed"} if self.pos_embed is not None else set()

    def _embed(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"x must be [B, {self.in_chans}, H, W], got shape {tuple(x.shape)}")
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        if self.pos_embed is None:
            return x
        height, width = x.shape[2:] if self.channel_first else x.shape[1:3]
        if (height, width) != tuple(self.pos_embed.shape[2:]):
            raise ValueError(
                f"the position embedding is for {list(self.pos_embed.shape[2:])} patches, the image has "
                f"{[height, width]}; build the network with the right imgsize, or without posembed"
            )
        return x + (self.pos_embed if self.channel_first else self.pos_embed.permute(0, 2, 3, 1))

    def _feature_map(self, stage: int, x: Tensor, norm: bool) -> Tensor:
        """The stage's map in the network's layout -> [B, C, H, W] contiguous."""
        if norm and stage == len(self.dims) - 1:
            x = self.classifier.norm(x)
        return (x if self.channel_first else as_image(x)).contiguous()


@ARCH_REGISTRY.register()
class Backbone_VSSM(VSSM):
    """VMamba as a feature pyramid: the map of each stage in ``out_indices`` through its own normalisation ``outnorm``.

    Args:
        out_indices: which stages; empty for the last one, not normalised. Negative ones count from the end.
        network: the arguments of VSSM (``num_classes`` has no influence).

    Raises:
        ValueError: an index out of range, or as VSSM.
        TypeError: an argument VSSM does not have.
    """

    def __init__(self, out_indices: Sequence[int] = (0, 1, 2, 3), **network: Any) -> None:
        super().__init__(**network)
        del self.classifier
        self.out_indices = resolve_indices(len(self.dims), out_indices) if len(out_indices) else []
        for i in self.out_indices:
            self.add_module(f"outnorm{i}", make_norm(self.norm_layer, self.dims[i]))

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:  # type: ignore[override]
        """[B, in_chans, H, W] -> maps [B, C, H / reduction, W / reduction]; only one, no list, without indices."""
        if not self.out_indices:
            return self._feature_map(len(self.dims) - 1, self.forward_features(x), norm=False)
        maps = self.forward_intermediates(x, self.out_indices, stop_early=True, intermediates_only=True)
        return list(maps)

    def load_classifier_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of a VSSM: all but its classifier; the output normalisations stay as they are.

        Raises:
            ValueError: anything else is missing, left over or of another shape; it is listed.
        """
        weights = {name: t for name, t in rename_vmamba(weights).items() if not name.startswith(CLASSIFIER)}
        own = {name: t for name, t in self.state_dict().items() if not BACKBONE_ONLY.match(name)}
        faults = [name for name in {**own, **weights} if name not in own or name not in weights]
        faults += [name for name in own if name in weights and own[name].shape != weights[name].shape]
        if faults:
            raise ValueError(f"the weights are not this network's: {', '.join(faults[:8])} ({len(faults)} in all)")
        self.load_state_dict(weights, strict=False)

    def _feature_map(self, stage: int, x: Tensor, norm: bool) -> Tensor:
        if stage in self.out_indices:
            x = self.get_submodule(f"outnorm{stage}")(x)
        return (x if self.channel_first else as_image(x)).contiguous()


def _widths(dims: int | Sequence[int], stages: int) -> tuple[int, ...]:
    widths = tuple(dims * 2**i for i in range(stages)) if isinstance(dims, int) else tuple(dims)
    if len(widths) != stages or stages < 1:
        raise ValueError(f"dims must be one number or one for each of the {stages} stages of depths, got {dims!r}")
    return widths


def _feature_info(dims: Sequence[int], first: int, step: int) -> list[dict[str, Any]]:
    """What timm wants to know of the stages: channels, pixels of the image per place, name of the module."""
    return [{"num_chs": dim, "reduction": first * step**i, "module": f"layers.{i}"} for i, dim in enumerate(dims)]


def _position_embedding(side: int, dim: int) -> nn.Parameter:
    embedding = nn.Parameter(torch.zeros(1, dim, side, side))
    nn.init.trunc_normal_(embedding, std=0.02)
    return embedding


def _head(features: int, num_classes: int, pooled: bool = True) -> nn.Module:
    if num_classes == 0:
        return nn.Identity()
    return nn.Linear(features, num_classes) if pooled else nn.Conv2d(features, num_classes, 1)


def _classifier(features: int, num_classes: int, norm_layer: str, drop_rate: float) -> nn.Sequential:
    steps = OrderedDict(
        norm=make_norm(norm_layer, features),
        permute=AsImage() if norm_layer == "ln" else nn.Identity(),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(1),
        drop=nn.Dropout(drop_rate),
        head=_head(features, num_classes),
    )
    return nn.Sequential(steps)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _rename_and_resize(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before loading: names of older files become ours; a position embedding of another size is resized."""
    own = {name[len(prefix) :]: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    own = rename_vmamba(own)
    wanted = getattr(module, "pos_embed", None)
    if wanted is not None and "pos_embed" in own and own["pos_embed"].shape[1] == wanted.shape[1]:
        own["pos_embed"] = resize_grid(own["pos_embed"], (wanted.shape[2], wanted.shape[3]))
    state_dict.update({prefix + name: tensor for name, tensor in own.items()})
