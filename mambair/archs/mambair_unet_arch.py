"""MambaIRUNet: MambaIR's blocks in a U for real denoising (layout of Restormer, Zamir et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs.detectors import Weights, count, prefixes, register_detector, shortest_ratio
from mambair.layers import VSSBlock, as_image, as_tokens
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.padding import pad_mirrored
from mambair.registry import ARCH_REGISTRY


class Level(nn.ModuleList):
    """The blocks of one resolution.

    Args:
        count: how many.
        dim: channels C.
        expand: expansion of the scan.
        drop_path: rate of stochastic depth of every block.
        use_checkpoint: activation checkpointing of every block.
    """

    def __init__(self, count: int, dim: int, expand: float, drop_path: float, use_checkpoint: bool) -> None:
        blocks = (VSSBlock(dim, drop_path=drop_path, norm_layer=nn.LayerNorm, expand=expand) for _ in range(count))
        super().__init__(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        for block in self:
            tokens = call_block(block, tokens, recompute=self.use_checkpoint)
        return tokens


class FirstFeatures(nn.Module):
    """Image [B, in, H, W] -> tokens [B, H, W, dim] by a 3x3 convolution."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return as_tokens(self.proj(image))


class Resample(nn.Module):
    """A 3x3 convolution and a change of resolution: [B, H, W, C] -> [B, H / 2, W / 2, 2 C], or the way back.

    Args:
        dim: channels C of the input.
        halve: halve the resolution; otherwise double it, with C / 2 channels.
    """

    def __init__(self, dim: int, halve: bool) -> None:
        super().__init__()
        channels, shuffle = (dim // 2, nn.PixelUnshuffle(2)) if halve else (dim * 2, nn.PixelShuffle(2))
        self.body = nn.Sequential(nn.Conv2d(dim, channels, 3, padding=1, bias=False), shuffle)

    def forward(self, tokens: Tensor) -> Tensor:
        return as_tokens(self.body(as_image(tokens)))


@ARCH_REGISTRY.register()
class MambaIRUNet(nn.Module):
    """The real-denoising network: four resolutions, skips by concatenation, the output is added to the input.

    Args:
        inp_channels, out_channels: channels of image and output, equal.
        dim: channels at full resolution, even; each halving doubles them.
        num_blocks: blocks at the four resolutions (the same number on the way down and up).
        mlp_ratio: expansion of the scan.
        num_refinement_blocks: blocks at full resolution after the way up.
        drop_path_rate: rate of stochastic depth of every block.
        bias: whether the last and the channel-reducing convolutions have a bias.
        dual_pixel_task: not available: the published code for it cannot run.
        use_checkpoint: activation checkpointing of every block: less memory, about a third more time in training.

    Raises:
        ValueError: an argument out of its range, or ``dual_pixel_task``.
    """

    upscale = 1
    default_tile = 256  # input pixels, as for the other networks
    tile_multiple = 8  # three halvings

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        mlp_ratio: float = 2.0,
        num_refinement_blocks: int = 4,
        drop_path_rate: float = 0.0,
        bias: bool = False,
        dual_pixel_task: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(inp_channels, out_channels, dim, num_blocks, dual_pixel_task)
        self.in_chans = inp_channels
        blocks, shared = num_blocks, (mlp_ratio, drop_path_rate, use_checkpoint)
        self.patch_embed = FirstFeatures(inp_channels, dim)
        self.encoder_level1 = Level(blocks[0], dim, *shared)
        self.down1_2 = Resample(dim, halve=True)
        self.encoder_level2 = Level(blocks[1], 2 * dim, *shared)
        self.down2_3 = Resample(2 * dim, halve=True)
        self.encoder_level3 = Level(blocks[2], 4 * dim, *shared)
        self.down3_4 = Resample(4 * dim, halve=True)
        self.latent = Level(blocks[3], 8 * dim, *shared)
        self.up4_3 = Resample(8 * dim, halve=False)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = Level(blocks[2], 4 * dim, *shared)
        self.up3_2 = Resample(4 * dim, halve=False)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = Level(blocks[1], 2 * dim, *shared)
        self.up2_1 = Resample(2 * dim, halve=False)
        self.decoder_level1 = Level(blocks[0], 2 * dim, *shared)
        self.refinement = Level(num_refinement_blocks, 2 * dim, *shared)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Denoise; sides that are no multiple of 8 are extended by mirroring at the right and bottom, then cropped.

        Args:
            x: [B, inp_channels, H, W] in [0, 1], any H, W >= 1.

        Returns:
            [B, out_channels, H, W], not clipped.

        Raises:
            ValueError: the input is not [B, inp_channels, H, W].
        """
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"x must be [B, {self.in_chans}, H, W], got shape {tuple(x.shape)}")
        height, width = x.shape[2:]
        image = pad_mirrored(x, self.tile_multiple, repeat_edge=False).contiguous(memory_format=torch.channels_last)
        level1 = self.encoder_level1(self.patch_embed(image))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        latent = self.latent(self.down3_4(level3))
        y = self.decoder_level3(_merge(self.up4_3(latent), level3, self.reduce_chan_level3))
        y = self.decoder_level2(_merge(self.up3_2(y), level2, self.reduce_chan_level2))
        y = self.refinement(self.decoder_level1(torch.cat((self.up2_1(y), level1), dim=-1)))
        return (self.output(as_image(y)) + image)[:, :, :height, :width].contiguous()


def _merge(up: Tensor, skip: Tensor, reduce: nn.Module) -> Tensor:
    """Two token maps [B, H, W, C] -> one, their channels joined and reduced to C."""
    return as_tokens(reduce(as_image(torch.cat((up, skip), dim=-1))))


def _check_arguments(
    inp_channels: int, out_channels: int, dim: int, num_blocks: Sequence[int], dual_pixel_task: bool
) -> None:
    if dual_pixel_task:
        raise ValueError("dual_pixel_task is not available: the published code for it cannot run, so no weights exist")
    if inp_channels != out_channels:
        raise ValueError(
            f"the output is added to the input, so out_channels must equal inp_channels, got {out_channels} and "
            f"{inp_channels}"
        )
    if len(num_blocks) != 4:
        raise ValueError(f"num_blocks must give the four resolutions, got {list(num_blocks)}")
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}")


@register_detector(
    "MambaIRUNet", r"patch_embed\.proj\.weight", r"down1_2\.body\.0\.weight", r"reduce_chan_level3\.weight"
)
def detect_mambair_unet(weights: Weights) -> dict[str, Any] | None:
    """The arguments of MambaIRUNet that its weights tell."""
    first = weights["patch_embed.proj.weight"]  # [dim, in, 3, 3]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent", "refinement")
    blocks = [count(weights, rf"{level}\.(\d+)\.") for level in levels]
    if None in blocks:
        return None
    kwargs = {
        "inp_channels": first.shape[1],
        "out_channels": weights["output.weight"].shape[0],
        "dim": first.shape[0],
        "num_blocks": blocks[:4],
        "num_refinement_blocks": blocks[4],
        "bias": "output.bias" in weights,
    }
    widths = [
        (weights[block + "ln_1.weight"].shape[0], weights[block + "self_attention.out_norm.weight"].shape[0])
        for block in prefixes(weights, r"\w+\.0\.(?=self_attention\.A_logs)")
    ]
    # without blocks the ratio has no influence
    return kwargs | ({"mlp_ratio": shortest_ratio(*widths)} if widths else {})
