"""MambaIR: image restoration with a 2-D selective scan (Guo et al., "MambaIR", ECCV 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from mambair.archs.detectors import Weights, count, prefixes, register_detector, shortest_ratio
from mambair.archs.restoration_network import ResidualGroup, RestorationNetwork, detect_frame
from mambair.layers import VSSBlock
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.channel_attention import LightCab
from mambair.layers.drop_path import linear_drop_rates
from mambair.registry import ARCH_REGISTRY


class BlockSequence(nn.Module):
    """Blocks one after the other, [B, H, W, C] -> [B, H, W, C].

    Args:
        blocks: the blocks.
        use_checkpoint: while training, keep only each block's input and compute the rest again in the backward pass.
    """

    def __init__(self, blocks: Sequence[nn.Module], use_checkpoint: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = call_block(block, tokens, recompute=self.use_checkpoint)
        return tokens


@ARCH_REGISTRY.register()
class MambaIR(RestorationNetwork):
    """MambaIR for super-resolution (classic, light, real), denoising and JPEG artefact removal.

    Args:
        img_size, patch_size: no influence on parameters or output (any size of image works); accepted because published
            option files give them.
        in_chans: channels of the image: 3 for RGB, 1 for grey.
        embed_dim: channels C.
        depths: number of blocks in each group.
        drop_rate: dropout rate of the first features.
        d_state: state size N of the scan.
        mlp_ratio: expansion of the scan layer, not of an MLP: it has int(mlp_ratio * C) channels.
        drop_path_rate: highest rate of stochastic depth; rises linearly from 0 over the blocks.
        norm_layer: makes a normalisation from C.
        patch_norm: whether the first features are normalised.
        use_checkpoint: activation checkpointing of every block: less memory, about a third more time in training.
        upscale: factor of enlargement; default 2, or 1 without upsampler.
        img_range: the image is multiplied by it inside.
        upsampler: "pixelshuffle" (classic and real super-resolution), "pixelshuffledirect" (light; also selects the
            light convolution block), "" (denoising, JPEG: the output is added to the input).
        resi_connection: "1conv" or "3conv" at the end of each group.
        light_cab: form of the light convolution block, see CAB; "legacy" for the published light weights from before
            October 2024.

    Raises:
        ValueError: an argument out of its range; "nearest+conv", which this network never had.
    """

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        drop_rate: float = 0.0,
        d_state: int = 16,
        mlp_ratio: float = 2.0,
        drop_path_rate: float = 0.1,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int | None = None,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        light_cab: LightCab = "dilated",
    ) -> None:
        depths = tuple(depths)
        groups = []
        for rates in linear_drop_rates(drop_path_rate, depths):
            blocks = [
                VSSBlock(
                    embed_dim,
                    drop_path=rate,
                    norm_layer=norm_layer,
                    d_state=d_state,
                    expand=mlp_ratio,
                    is_light_sr=upsampler == "pixelshuffledirect",
                    light_cab=light_cab,
                )
                for rate in rates
            ]
            groups.append(ResidualGroup(BlockSequence(blocks, use_checkpoint), embed_dim, resi_connection))
        super().__init__(
            groups,
            in_chans=in_chans,
            embed_dim=embed_dim,
            upscale=upscale,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
            drop_rate=drop_rate,
            norm_layer=norm_layer,
            patch_norm=patch_norm,
        )


@register_detector(
    "MambaIR",
    r"conv_first\.weight",
    r"layers\.\d+\.residual_group\.blocks\.0\.self_attention\.A_logs",
    r"layers\.\d+\.residual_group\.blocks\.0\.conv_blk\.cab\.0\.weight",
)
def detect_mambair(weights: Weights) -> dict[str, Any] | None:
    """The arguments of MambaIR that its weights tell (not ``img_range`` and the training-time rates)."""
    frame = detect_frame(weights)
    groups = count(weights, r"layers\.(\d+)\.")
    if frame is None or groups is None:
        return None
    depths = [count(weights, rf"layers\.{i}\.residual_group\.blocks\.(\d+)\.") for i in range(groups)]
    if None in depths:
        return None
    block = prefixes(weights, r"layers\.\d+\.residual_group\.blocks\.0\.")[0]
    inner = weights[block + "self_attention.out_norm.weight"].shape[0]
    kwargs = frame | {
        "depths": depths,
        "d_state": weights[block + "self_attention.A_logs"].shape[1],
        "mlp_ratio": shortest_ratio((frame["embed_dim"], inner)),
    }
    if frame["upsampler"] == "pixelshuffledirect":
        kwargs["light_cab"] = _detect_light_cab(weights, block + "conv_blk.cab.")
    return kwargs


def _detect_light_cab(weights: Weights, prefix: str) -> LightCab:
    if prefix + "1.attention.1.weight" in weights:
        return "depthwise"
    return "dilated" if prefix + "5.attention.1.weight" in weights else "legacy"
