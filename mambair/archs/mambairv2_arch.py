"""MambaIRv2: image restoration with attentive state-space layers (Guo et al., "MambaIRv2", CVPR 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count as counter
from math import isqrt
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from mambair.archs.detectors import Weights, count, prefixes, register_detector, shortest_ratio
from mambair.archs.restoration_network import ResidualGroup, RestorationNetwork, detect_frame
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.attentive_scan import AttentiveStateSpace, gumbel_noise, placed_noise
from mambair.layers.feed_forward import ConvFeedForward, GatedConvFeedForward
from mambair.layers.padding import pad_mirrored
from mambair.layers.window_attention import WindowAttention, border_masks, relative_position_index, window_order
from mambair.registry import ARCH_REGISTRY

Routing = Literal["gumbel", "argmax"]
ROUTINGS: tuple[str, ...] = get_args(Routing)
SCALE_INIT = 1e-4


class AttentiveLayer(nn.Module):
    """Window attention, then the attentive scan, each followed by a feed-forward layer (figure 3).

    Args:
        dim: channels C.
        d_state: state size N.
        num_heads: heads of the window attention.
        window_size: side of a window.
        shift: how far the windows are shifted, 0 or half a window.
        inner_rank, num_tokens: of the prompts, see AttentiveStateSpace.
        feed_forward: makes a feed-forward layer.
        mlp_ratio: expansion of the scan.
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer: makes a normalisation from C.
    """

    def __init__(
        self,
        dim: int,
        d_state: int,
        num_heads: int,
        *,
        window_size: int,
        shift: int,
        inner_rank: int,
        num_tokens: int,
        feed_forward: Callable[[], nn.Module],
        mlp_ratio: float,
        qkv_bias: bool,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1, self.norm2, self.norm3, self.norm4 = (norm_layer(dim) for _ in range(4))
        self.wqkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.win_mhsa = WindowAttention(dim, window_size, num_heads)
        self.assm = AttentiveStateSpace(dim, d_state, num_tokens, inner_rank, mlp_ratio)
        self.convffn1 = feed_forward()
        self.convffn2 = feed_forward()
        self.embeddingA = nn.Embedding(inner_rank, d_state)
        nn.init.uniform_(self.embeddingA.weight, -1 / inner_rank, 1 / inner_rank)
        self.scale1 = nn.Parameter(torch.full((dim,), SCALE_INIT))
        self.scale2 = nn.Parameter(torch.full((dim,), SCALE_INIT))

    def forward(self, x: Tensor, position_index: Tensor, noise: Tensor | None) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C], H and W multiples of the window size; ``noise`` as in AttentiveStateSpace."""
        local = self._attend(self.norm1(x), position_index) + x
        local = self.convffn1(self.norm2(local)) + local
        x = torch.addcmul(local, x, self.scale1)
        mixed = self.assm(self.norm3(x), self.embeddingA.weight, noise) + x
        mixed = self.convffn2(self.norm4(mixed)) + mixed
        return torch.addcmul(mixed, x, self.scale2)

    def _attend(self, x: Tensor, position_index: Tensor) -> Tensor:
        windows = window_order(*x.shape[:3], self.window_size, self.shift, x.device)
        masks = border_masks(self.window_size, self.shift, x.device) if self.shift else None
        qkv = self.wqkv(windows.split(x))
        return windows.merge(self.win_mhsa(qkv, position_index, windows.windows, masks), x.shape)


class AttentiveLayerSequence(nn.Module):
    """Attentive layers one after the other.

    Args:
        layers: the layers.
        use_checkpoint: while training, keep only each layer's input and compute the rest again in the backward pass.
    """

    def __init__(self, layers: Sequence[AttentiveLayer], use_checkpoint: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.use_checkpoint = use_checkpoint

    def forward(self, tokens: Tensor, position_index: Tensor, draw: Callable[[Tensor], Tensor | None]) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]; ``draw`` gives the routing noise of the next layer."""
        for layer in self.layers:
            noise = draw(tokens)
            tokens = call_block(layer, tokens, position_index, noise, recompute=self.use_checkpoint)
        return tokens


@ARCH_REGISTRY.register()
class MambaIRv2(RestorationNetwork):
    """MambaIRv2 for super-resolution (small, base, large, real), denoising and JPEG artefact removal.

    Args:
        img_size: no influence, unless ``ape``: then the only side an image may have.
        patch_size: no influence; accepted because published option files give it.
        in_chans: channels of the image: 3 for RGB, 1 for grey.
        embed_dim: channels C.
        d_state: state size N of the scan.
        depths: number of layers in each group.
        num_heads: attention heads in each group.
        window_size: side of an attention window; smaller or odd images are extended to a multiple and cropped again.
        inner_rank, num_tokens: of the prompts, see AttentiveStateSpace.
        convffn_kernel_size: side of the depthwise convolution in the feed-forward layers (the light network has 5).
        mlp_ratio: expansion of the scan and of the feed-forward layers.
        qkv_bias: whether queries, keys and values have a bias.
        norm_layer: makes a normalisation from C.
        ape: a learnt vector for every position of an ``img_size`` x ``img_size`` image.
        patch_norm: whether the first features are normalised.
        use_checkpoint: activation checkpointing of every layer: less memory, about a third more time in training.
        upscale: factor of enlargement; default 2, or 1 without upsampler.
        img_range: the image is multiplied by it inside.
        upsampler: "pixelshuffle", "pixelshuffledirect" (light), "nearest+conv" (real, x4 only), "" (denoising, JPEG).
        resi_connection: "1conv" or "3conv" at the end of each group.
        routing: how a pixel chooses its prompt: "gumbel", with noise, also in eval mode as published (there it is a
            fixed function of a seed and the pixel's place, so that runs agree); "argmax", the likeliest one.

    Raises:
        ValueError: an argument out of its range.
    """

    UPSAMPLERS: ClassVar[tuple[str, ...]] = ("", "pixelshuffle", "pixelshuffledirect", "nearest+conv")
    placed = True  # forward takes a seed and the origins of tiles
    relative_position_index_SA: Tensor

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 48,
        d_state: int = 8,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        inner_rank: int = 32,
        num_tokens: int = 64,
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int | None = None,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        routing: Routing = "gumbel",
    ) -> None:
        _check_arguments(depths, num_heads, routing)
        layer = partial(
            AttentiveLayer,
            embed_dim,
            d_state,
            window_size=window_size,
            inner_rank=inner_rank,
            num_tokens=num_tokens,
            feed_forward=self._feed_forward(embed_dim, int(mlp_ratio * embed_dim), convffn_kernel_size),
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            norm_layer=norm_layer,
        )
        sequences = [
            AttentiveLayerSequence(
                [layer(heads, shift=j % 2 * (window_size // 2)) for j in range(depth)], use_checkpoint
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        ]
        super().__init__(
            [ResidualGroup(sequence, embed_dim, resi_connection) for sequence in sequences],
            in_chans=in_chans,
            embed_dim=embed_dim,
            upscale=upscale,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
            drop_rate=0.0,
            norm_layer=norm_layer,
            patch_norm=patch_norm,
        )
        self.window_size, self.num_tokens, self.routing = window_size, num_tokens, routing
        self.tile_multiple = window_size
        self.register_buffer("relative_position_index_SA", relative_position_index(window_size))
        self.absolute_pos_embed = _position_vectors((img_size // patch_size) ** 2, embed_dim) if ape else None

    @staticmethod
    def _feed_forward(dim: int, hidden: int, kernel_size: int) -> Callable[[], nn.Module]:
        return partial(ConvFeedForward, dim, hidden, kernel_size)

    def forward(
        self,
        x: Tensor,
        *,
        generator: torch.Generator | None = None,
        noise: Sequence[Tensor] | None = None,
        seed: int = 0,
        origin: Tensor | None = None,
    ) -> Tensor:
        """Restore images; sides that are no multiple of the window are extended by mirroring at the right and bottom.

        Args:
            x: [B, in_chans, H, W] RGB (or grey) in [0, 1], any H, W >= 1.
            generator: draw the routing noise from it. None: torch's default generator in training; in eval mode the
                noise of ``seed`` and ``origin``, equal for every run, batch and number of threads. Unused by "argmax".
            noise: the routing noise itself, one [B, H' * W', num_tokens] for each layer in the order of the network,
                H' and W' the extended sides; for exact comparisons.
            seed: chooses the noise of eval mode.
            origin: integers [B, 2], row and column of each image's first pixel in the picture it is a tile of, so that
                overlapping tiles get the same noise; None is (0, 0).

        Returns:
            [B, in_chans, H * upscale, W * upscale], not clipped.

        Raises:
            ValueError: the input is not [B, in_chans, H, W], or not ``img_size`` large with ``ape``.
        """
        self._check(x)
        height, width = x.shape[2:]
        padded = pad_mirrored(x, self.window_size, repeat_edge=True)
        given = None if noise is None else iter(noise)
        drawn = self.training or generator is not None
        numbers = counter()

        def draw(tokens: Tensor) -> Tensor | None:
            if given is not None:
                return next(given)
            if self.routing == "argmax":
                return None
            batch, rows, columns, _ = tokens.shape
            if drawn:
                return gumbel_noise((batch, rows * columns, self.num_tokens), tokens.device, generator)
            return placed_noise(
                batch,
                (rows, columns),
                self.num_tokens,
                seed=seed,
                layer=next(numbers),
                origin=origin,
                device=tokens.device,
            )

        y = self._restore(padded, partial(self._attentive_body, draw=draw))
        return y[:, :, : height * self.upscale, : width * self.upscale].contiguous()

    def _attentive_body(self, tokens: Tensor, draw: Callable[[Tensor], Tensor | None]) -> Tensor:
        if self.absolute_pos_embed is not None:
            places = self.absolute_pos_embed.shape[1]
            if tokens.shape[1] * tokens.shape[2] != places:
                raise ValueError(
                    f"a network with ape takes images of {places} pixels only, got {tokens.shape[1]}x{tokens.shape[2]}"
                )
            tokens = tokens + self.absolute_pos_embed.view(1, *tokens.shape[1:])
        for group in self.layers:
            tokens = group(tokens, self.relative_position_index_SA, draw)
        return tokens


@ARCH_REGISTRY.register()
class MambaIRv2Light(MambaIRv2):
    """MambaIRv2 with gated feed-forward layers for light networks; ``convffn_kernel_size`` has no influence."""

    @staticmethod
    def _feed_forward(dim: int, hidden: int, kernel_size: int) -> Callable[[], nn.Module]:
        return partial(GatedConvFeedForward, dim, hidden)


def _check_arguments(depths: Sequence[int], num_heads: Sequence[int], routing: str) -> None:
    if len(num_heads) != len(depths):
        raise ValueError(f"num_heads and depths must have one entry a group, got {num_heads} and {depths}")
    if routing not in ROUTINGS:
        raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, got {routing!r}")


def _position_vectors(places: int, dim: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, places, dim), std=0.02))


_LAYER = r"layers\.\d+\.residual_group\.layers\.0\."
_BIASES = "win_mhsa.relative_position_bias_table"


def _detect_attentive(weights: Weights) -> dict[str, Any] | None:
    """The arguments both classes share."""
    frame = detect_frame(weights)
    groups = count(weights, r"layers\.(\d+)\.")
    if frame is None or groups is None:
        return None
    depths = [count(weights, rf"layers\.{i}\.residual_group\.layers\.(\d+)\.") for i in range(groups)]
    if None in depths:
        return None
    layer = prefixes(weights, _LAYER)[0]
    tables = [weights.get(f"layers.{i}.residual_group.layers.0.{_BIASES}") for i in range(groups)]
    inner = weights[layer + "assm.out_norm.weight"].shape[0]
    kwargs = frame | {
        "depths": depths,
        "num_heads": [1 if table is None else table.shape[1] for table in tables],
        "window_size": (isqrt(weights[layer + _BIASES].shape[0]) + 1) // 2,
        "d_state": weights[layer + "assm.selectiveScan.A_logs"].shape[1],
        "inner_rank": weights[layer + "embeddingA.weight"].shape[0],
        "num_tokens": weights[layer + "assm.embeddingB.weight"].shape[0],
        "mlp_ratio": shortest_ratio((frame["embed_dim"], inner)),
        "qkv_bias": layer + "wqkv.bias" in weights,
    }
    if "absolute_pos_embed" in weights:
        kwargs |= {"ape": True, "img_size": isqrt(weights["absolute_pos_embed"].shape[1])}
    return kwargs


@register_detector(
    "MambaIRv2",
    r"conv_first\.weight",
    r"layers\.\d+\.residual_group\.layers\.0\.assm\.selectiveScan\.A_logs",
    r"layers\.\d+\.residual_group\.layers\.0\.convffn1\.dwconv\.",
)
def detect_mambairv2(weights: Weights) -> dict[str, Any] | None:
    """The arguments of MambaIRv2 that its weights tell (not ``img_range`` and ``routing``)."""
    kwargs = _detect_attentive(weights)
    if kwargs is None:
        return None
    kernel = weights[f"{prefixes(weights, _LAYER)[0]}convffn1.dwconv.depthwise_conv.0.weight"]
    return kwargs | {"convffn_kernel_size": kernel.shape[-1]}


@register_detector(
    "MambaIRv2Light",
    r"conv_first\.weight",
    r"layers\.\d+\.residual_group\.layers\.0\.assm\.selectiveScan\.A_logs",
    r"layers\.\d+\.residual_group\.layers\.0\.convffn1\.sg\.",
)
def detect_mambairv2_light(weights: Weights) -> dict[str, Any] | None:
    """The arguments of MambaIRv2Light that its weights tell (not ``img_range`` and ``routing``)."""
    return _detect_attentive(weights)
