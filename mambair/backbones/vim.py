"""Vision Mamba (Zhu et al., "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space
Model", ICML 2024): an image as a sequence of patches, read in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mambair.backbones.feature_indices import resolve_indices
from mambair.backbones.rotary_embedding import RotaryEmbedding2d
from mambair.backbones.vim_parts import PatchEmbed, create_block
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.bidirectional_mamba import BimambaType, token_norm
from mambair.layers.drop_path import DropPath, linear_drop_rates
from mambair.registry import ARCH_REGISTRY

PoolType = Literal["none", "mean", "max", "all"]
POOL_TYPES = get_args(PoolType)
CLASS_TOKENS = {"none": 0, "double": 2}  # how many there are; one otherwise


@ARCH_REGISTRY.register()
class VisionMamba(nn.Module):
    """Vision Mamba for classification: patches + position -> blocks -> normalisation -> class token or pool -> classes.

    Args:
        img_size: side of the image, or (rows, columns).
        patch_size, stride: side of a patch, and the step from patch to patch.
        depth: blocks.
        embed_dim: channels C.
        d_state: state size of the scans.
        channels: of the image.
        num_classes: 0 for features instead.
        ssm_cfg: further arguments of BidirectionalMamba, by name.
        drop_rate: dropout rate of the tokens.
        drop_path_rate: highest rate of stochastic depth.
        norm_epsilon, rms_norm: of the normalisations: RMSNorm or LayerNorm.
        initializer_cfg: ``rescale_prenorm_residual`` (True) and ``n_residuals_per_layer`` (1): whether the mixers'
            output weights are divided by the root of (the latter times ``depth``).
        fused_add_norm, ft_seq_len: no influence; accepted because published configurations give them.
        residual_in_fp32: see MambaBlock.
        device, dtype: where the parameters are and what they are.
        pt_hw_seq_len: side of the grid that rotary embeddings are scaled to.
        if_bidirectional: blocks in pairs, the second on the sequence turned round; both results are added. A last block
            without partner is not run.
        final_pool_type: without class token: "none" (the last token), "mean", "max" (over the tokens' logits), "all"
            (logits of every token). With a class token it has no influence, as published.
        if_abs_pos_embed: a learned position embedding.
        if_rope, if_rope_residual: rotary embedding of the hidden tokens, of the residual too, before every block.
        flip_img_sequences_ratio: probability of turning the sequence round, in eval mode too; 0 or less for never.
        if_bimamba: the same as bimamba_type "v1".
        bimamba_type, if_divide_out, init_layer_scale: see BidirectionalMamba.
        if_cls_token: a class token: before patch M // 2 of M, or with ``use_double_cls_token`` one at each end (their
            mean is used), or, with ``use_middle_cls_token`` off, at the start.
        if_devide_out: another spelling of ``if_divide_out``, which it overrides.
        use_checkpoint: activation checkpointing of every block in training.

    Raises:
        ValueError: an argument out of its range, or rotary embeddings for tokens that are no grid.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        stride: int = 16,
        depth: int = 24,
        embed_dim: int = 192,
        d_state: int = 16,
        channels: int = 3,
        num_classes: int = 1000,
        ssm_cfg: Mapping[str, Any] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = True,
        initializer_cfg: Mapping[str, Any] | None = None,
        fused_add_norm: bool = True,
        residual_in_fp32: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        ft_seq_len: int | None = None,
        pt_hw_seq_len: int = 14,
        if_bidirectional: bool = False,
        final_pool_type: PoolType = "none",
        if_abs_pos_embed: bool = True,
        if_rope: bool = False,
        if_rope_residual: bool = False,
        flip_img_sequences_ratio: float = -1.0,
        if_bimamba: bool = False,
        bimamba_type: BimambaType = "v2",
        if_cls_token: bool = True,
        if_divide_out: bool = True,
        init_layer_scale: float | None = None,
        use_double_cls_token: bool = False,
        use_middle_cls_token: bool = True,
        if_devide_out: bool | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if final_pool_type not in POOL_TYPES:
            raise ValueError(f"final_pool_type must be one of {', '.join(POOL_TYPES)}, got {final_pool_type!r}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.in_chans, self.num_classes = channels, num_classes
        self.embed_dim = self.num_features = embed_dim
        self.head_hidden_size, self.use_checkpoint = embed_dim, use_checkpoint
        self.if_bidirectional = if_bidirectional
        self.flip_img_sequences_ratio = flip_img_sequences_ratio
        self.if_rope, self.if_rope_residual = if_rope, if_rope_residual
        self.class_token = _class_token(if_cls_token, use_double_cls_token, use_middle_cls_token)
        self.num_prefix_tokens = int(self.class_token == "head")  # timm's number of tokens before the patches
        pools = {"none": "last", "mean": "avg", "max": "", "all": ""}
        self.global_pool = pools[final_pool_type] if self.class_token == "none" else "token"
        self.max_over_logits = self.class_token == "none" and final_pool_type == "max"
        size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        patches = PatchEmbed(size, patch_size, stride, channels, embed_dim)
        self._add_tokens(patches, if_abs_pos_embed, drop_rate, pt_hw_seq_len)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        divide = if_divide_out if if_devide_out is None else if_devide_out
        norm = (norm_epsilon, rms_norm, residual_in_fp32)
        scan = (if_bimamba, bimamba_type, divide, init_layer_scale)
        self._add_blocks(depth, drop_path_rate, (d_state, ssm_cfg), norm, scan)
        self.norm_f = token_norm(embed_dim, norm_epsilon, rms_norm=rms_norm)
        self.feature_info = [{"num_chs": embed_dim, "reduction": stride, "module": f"layers.{i}"} for i in range(depth)]
        self._initialise(**(initializer_cfg or {}))
        self.to(device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        return_features: bool = False,
        if_random_cls_token_position: bool = False,
        if_random_token_rank: bool = False,
    ) -> Tensor:
        """Classify.

        Args:
            x: [B, channels, *img_size], normalised as the weights ask.
            return_features: return what the head would get.
            if_random_cls_token_position: put the class token at a random place; only for one "head" token.
            if_random_token_rank: shuffle the tokens, the same way for all images of the batch.

        Returns:
            Logits [B, num_classes]; [B, M, num_classes] for final_pool_type "all". Features: [B, C], or all tokens
            [B, M, C] for "max" and "all".
        """
        features = self._pool(*self._tokens(x, if_random_cls_token_position, if_random_token_rank))
        return features if return_features else self._logits(features)

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, channels, *img_size] -> all tokens [B, L, C] after the final normalisation, class tokens among them."""
        return self._tokens(x)[0]

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens of ``forward_features`` -> logits; with ``pre_logits`` what the linear layer would get."""
        features = self._pool(tokens, self._places(tokens.shape[1]))
        return features if pre_logits else self._logits(features)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
    ) -> list[Any] | tuple[Tensor, list[Any]]:
        """The maps after some blocks (hidden + residual, without class tokens), as timm's feature extraction asks.

        Args:
            x: [B, channels, *img_size].
            indices: which blocks; a number n for the last n, None for all; negative ones count from the end. Of pairs
                (``if_bidirectional``), either block stands for the pair.
            norm: apply the final normalisation to each.
            stop_early: leave out the blocks behind the last of ``indices``.
            output_fmt: "NCHW" for maps [B, C, rows, columns], "NLC" for patches [B, M, C] in raster order.
            intermediates_only: return the list alone.
            return_prefix_tokens: return (map, class tokens [B, 1 or 2, C]) of each block, where there are class tokens.

        Returns:
            The maps in rising order of the blocks; before them, unless ``intermediates_only``, all tokens after the
            final normalisation.

        Raises:
            ValueError: an index out of range, or another format.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f'output_fmt must be "NCHW" or "NLC", got {output_fmt!r}')
        wanted = resolve_indices(len(self.layers), indices)
        tokens, places = self._embed(x)
        tokens, states, flipped = self._run_blocks(tokens, wanted, stop_early)
        states = [state.flip(1) if flipped else state for state in states]
        states = [self.norm_f(state) if norm else state for state in states]
        maps: list[Any] = [_without(state, places) for state in states]
        if output_fmt == "NCHW":
            maps = [each.transpose(1, 2).unflatten(2, self.patch_embed.grid_size).contiguous() for each in maps]
        if return_prefix_tokens and places:
            maps = [(each, state[:, places]) for each, state in zip(maps, states, strict=True)]
        return maps if intermediates_only else (tokens, maps)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Any]:
        """`forward_intermediates` of the last ``n`` blocks, or of the blocks ``n``, under DINO's name for it.

        ``reshape`` gives maps [B, C, rows, columns] instead of patches [B, M, C].
        """
        output_fmt = "NCHW" if reshape else "NLC"
        extras: dict[str, Any] = {"return_prefix_tokens": return_prefix_tokens, "intermediates_only": True}
        return list(self.forward_intermediates(x, n, norm, output_fmt=output_fmt, **extras))

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the features ``indices`` do not need: later blocks, final norm, head. Returns the indices."""
        wanted = resolve_indices(len(self.layers), indices)
        kept = max(wanted) + 1
        self.layers = self.layers[: kept + kept % 2 if self.if_bidirectional else kept]
        if prune_norm:
            self.norm_f = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return wanted

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh linear layer for another number of classes; 0 for none.

        Args:
            num_classes: of the new layer.
            global_pool: what becomes of the tokens: "token" (the class tokens' mean), "last", "avg" or "max" (over the
                patches), "" (all tokens stay, and the layer is applied to each); None leaves it as it is.

        Raises:
            ValueError: another pool, or "token" without class tokens.
        """
        pools = ("", "last", "avg", "max") if self.class_token == "none" else ("", "last", "avg", "max", "token")
        if global_pool is not None:
            if global_pool not in pools:
                raise ValueError(f"global_pool must be one of {', '.join(map(repr, pools))}, got {global_pool!r}")
            self.global_pool, self.max_over_logits = global_pool, False
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
        self.head.apply(_initialise_linear).to(self.patch_embed.proj.weight)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch activation checkpointing of every block on or off, under timm's name for ``use_checkpoint``."""
        self.use_checkpoint = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm puts parameters into groups, for learning rates that fall with the depth."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))],  # the norm belongs to the last block
        }

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are trained without weight decay."""
        names = ("pos_embed", "cls_token", "cls_token_head", "cls_token_tail")
        return {name for name in names if getattr(self, name, None) is not None}

    def _add_blocks(
        self,
        depth: int,
        drop_path_rate: float,
        state: tuple[int, Mapping[str, Any] | None],
        norm: tuple[float, bool, bool],
        scan: tuple[bool, BimambaType, bool, float | None],
    ) -> None:
        """``state``, ``norm`` and ``scan`` are create_block's arguments in its order."""
        rates = linear_drop_rates(drop_path_rate, (depth,))[0]
        self.drop_path = DropPath(rates[-1])
        (epsilon, rms_norm, in_fp32), (bimamba, kind, divide, scale) = norm, scan
        self.layers = nn.ModuleList(
            create_block(self.embed_dim, *state, epsilon, rate, rms_norm, in_fp32, True, bimamba, kind, divide, scale)
            for rate in [0.0, *rates][:depth]
        )

    def _add_tokens(self, patches: PatchEmbed, position: bool, drop_rate: float, pt_hw_seq_len: int) -> None:
        """All that makes tokens of an image and tells their places; the order is that of published weights."""
        names = {"none": (), "double": ("cls_token_head", "cls_token_tail")}.get(self.class_token, ("cls_token",))
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, self.embed_dim)))
        tokens = patches.num_patches + len(names)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, self.embed_dim)) if position else None
        self.patch_embed = patches
        self.pos_drop = nn.Dropout(drop_rate)
        if self.if_rope:
            _check_rope(patches, self.class_token)
            side = patches.grid_size[0]
            self.rope = RotaryEmbedding2d(self.embed_dim // 2, pt_hw_seq_len, side)

    def _initialise(self, rescale_prenorm_residual: bool = True, n_residuals_per_layer: int = 1) -> None:
        """The published initial values; of a backward step projection only the bias is touched, it becomes 0."""
        for name in sorted(self.no_weight_decay()):
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
        _lecun_normal(self.patch_embed.proj)
        self.head.apply(_initialise_linear)
        for block in self.layers:
            mixer = block.mixer
            for layer in (mixer.in_proj, mixer.out_proj, getattr(mixer, "dt_proj_b", None)):
                if layer is not None and layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            nn.init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5))
            if rescale_prenorm_residual:
                with torch.no_grad():
                    mixer.out_proj.weight /= math.sqrt(n_residuals_per_layer * len(self.layers))

    def _embed(self, x: Tensor, random_place: bool = False) -> tuple[Tensor, list[int]]:
        """Image -> tokens [B, L, C] with position, and the places of the class tokens among them."""
        tokens = self.patch_embed(x)
        places = self._places(tokens.shape[1] + CLASS_TOKENS.get(self.class_token, 1))
        if random_place and self.class_token == "head":
            places = [int(torch.randint(0, tokens.shape[1] + 1, ()))]
        if self.class_token == "double":
            tokens = torch.cat([_repeat(self.cls_token_head, x), tokens, _repeat(self.cls_token_tail, x)], 1)
        elif places:
            tokens = torch.cat([tokens[:, : places[0]], _repeat(self.cls_token, x), tokens[:, places[0] :]], 1)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        return self.pos_drop(tokens), places

    def _places(self, count: int) -> list[int]:
        """The places of the class tokens among ``count`` tokens."""
        return {"none": [], "head": [0], "middle": [(count - 1) // 2], "double": [0, count - 1]}[self.class_token]

    def _tokens(self, x: Tensor, random_place: bool = False, random_rank: bool = False) -> tuple[Tensor, list[int]]:
        """Image -> normalised tokens [B, L, C], and the places of the class tokens among them."""
        tokens, places = self._embed(x, random_place)
        if random_rank:
            order = torch.randperm(tokens.shape[1], device=tokens.device)
            tokens = tokens[:, order]
            places = [int((order == place).nonzero()) for place in places]
        return self._run_blocks(tokens, ())[0], places

    def _run_blocks(
        self, hidden: Tensor, wanted: Sequence[int], stop_early: bool = False
    ) -> tuple[Tensor, list[Tensor], bool]:
        """Tokens [B, L, C] -> normalised tokens, hidden + residual after ``wanted`` blocks, whether all is turned."""
        flipped = self.flip_img_sequences_ratio > 0.0 and float(torch.rand(())) < self.flip_img_sequences_ratio
        if flipped:
            hidden = hidden.flip(1)
        residual: Tensor | None = None
        states: list[Tensor] = []
        step = 2 if self.if_bidirectional else 1
        for first in range(0, len(self.layers) - step + 1, step):
            if stop_early and wanted and first > max(wanted):
                break
            if self.if_rope:
                hidden = self._rotate(hidden, flipped)
                if residual is not None and self.if_rope_residual:
                    residual = self._rotate(residual, flipped)
            before = residual
            hidden_in = hidden
            hidden, residual = self._call(first, hidden_in, before)
            if self.if_bidirectional:
                turned = self._call(first + 1, hidden_in.flip(1), None if before is None else before.flip(1))
                hidden, residual = hidden + turned[0].flip(1), residual + turned[1].flip(1)
            states += [hidden + residual for i in range(first, first + step) if i in wanted]
        total = hidden if residual is None else self.drop_path(hidden) + residual
        return self.norm_f(total.to(self.patch_embed.proj.weight.dtype)), states, flipped

    def _call(self, index: int, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        recompute = self.use_checkpoint and self.training
        return call_block(self.layers[index], hidden, residual, recompute=recompute)

    def _rotate(self, tokens: Tensor, flipped: bool) -> Tensor:
        """Rotary embedding in the order of the image, whichever way the sequence is turned."""
        return self.rope(tokens.flip(1)).flip(1) if flipped else self.rope(tokens)

    def _pool(self, tokens: Tensor, places: list[int]) -> Tensor:
        """Normalised tokens [B, L, C] -> features [B, C], or the tokens where they stay, see `reset_classifier`."""
        if self.global_pool == "token":
            return tokens[:, places].mean(1)
        if self.global_pool == "last":
            return tokens[:, -1]
        if self.global_pool == "":
            return tokens
        patches = _without(tokens, places)
        return patches.mean(1) if self.global_pool == "avg" else patches.amax(1)

    def _logits(self, features: Tensor) -> Tensor:
        logits = self.head(features)
        return logits.amax(1) if self.max_over_logits else logits


def _without(tokens: Tensor, places: list[int]) -> Tensor:
    """[B, L, C] -> [B, M, C], the patches: without the class tokens, which are at ``places``."""
    return tokens[:, [i for i in range(tokens.shape[1]) if i not in places]] if places else tokens


def _repeat(token: Tensor, x: Tensor) -> Tensor:
    return token.expand(x.shape[0], -1, -1)


def _class_token(present: bool, double: bool, middle: bool) -> Literal["none", "head", "middle", "double"]:
    if not present:
        return "none"
    return "double" if double else "middle" if middle else "head"


def _check_rope(patches: PatchEmbed, class_token: str) -> None:
    """Rotary embeddings need a square grid of an even number of patches, and at most one class token."""
    rows, columns = patches.grid_size
    overlapping = patches.proj.stride != patches.proj.kernel_size
    if rows != columns or overlapping or patches.num_patches % 2 or class_token == "double":
        raise ValueError(
            "if_rope needs a square image, stride = patch_size, an even number of patches and at most one class token; "
            f"got img_size {patches.img_size}, patch_size {patches.proj.kernel_size[0]}, stride "
            f"{patches.proj.stride[0]}, {patches.num_patches} patches, class token {class_token!r}"
        )


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _lecun_normal(convolution: nn.Conv2d) -> None:
    """Normal, cut off at two deviations, of variance 1 / fan-in; the bias is 0."""
    cut = 0.87962566103423978  # deviation of the unit normal after the cut
    std = convolution.weight[0].numel() ** -0.5 / cut
    nn.init.trunc_normal_(convolution.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(convolution.bias)
