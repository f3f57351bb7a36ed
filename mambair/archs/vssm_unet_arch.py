"""VSSMUNet: image restoration by the stages of VMamba (Liu et al., NeurIPS 2024) in a U with skips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.archs.classifier_start import copy_body
from mambair.archs.detectors import Weights, count, prefixes, register_detector, shortest_ratio
from mambair.layers import SS2D, MapMlp, Upsample, VMambaBlock, as_image, as_tokens
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.drop_path import linear_drop_rates
from mambair.layers.padding import pad_mirrored
from mambair.layers.vmamba_block import downsampling, patch_embedding
from mambair.registry import ARCH_REGISTRY

PATCH = 4  # pixels from place to place at the first stage
BODY = re.compile(r"(patch_embed|layers)\.")


class UNetStage(nn.Module):
    """The blocks of one resolution and, on the way down, the step to the next; maps are [B, H, W, C]."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module, use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, C] -> the map of this resolution, and the one of the next."""
        for block in self.blocks:
            x = call_block(block, x, recompute=self.use_checkpoint and self.training)
        return x, self.downsample(x)


class Enlarge(nn.Module):
    """A linear layer and pixel shuffle: [B, H, W, C] -> [B, factor * H, factor * W, out]."""

    def __init__(self, dim: int, out: int, factor: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out * factor**2)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return as_tokens(F.pixel_shuffle(as_image(self.linear(x)), self.factor))


class UpStage(nn.Module):
    """Enlarge, join the skip, blocks."""

    def __init__(self, below: int, dim: int, blocks: Iterable[nn.Module], use_checkpoint: bool) -> None:
        super().__init__()
        self.enlarge = Enlarge(below, dim, 2)
        self.reduce = nn.Linear(2 * dim, dim)
        self.stage = UNetStage(blocks, nn.Identity(), use_checkpoint)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x [B, H / 2, W / 2, below], skip [B, H, W, dim] -> [B, H, W, dim]."""
        return self.stage(self.reduce(torch.cat((self.enlarge(x), skip), -1)))[0]


@ARCH_REGISTRY.register()
class VSSMUNet(nn.Module):
    """Two paths from the image: a convolution at full size, and VMamba's stages in a U; joined, enlarged, added to it.

    The names of the way down are those of VSSM, so that it can start from a classification network.

    Args:
        in_chans: channels of the image: 3 for RGB, 1 for grey.
        upscale: factor of enlargement, 1 for denoising and JPEG.
        dims: channels of the stages on the way down; the first is at a quarter of the image's sides.
        depths: blocks of each of them. The way up has as many at the same resolution.
        shallow_dim: channels at full size.
        ssm_d_state, ssm_ratio, mlp_ratio: of the blocks, see VSSM.
        drop_path_rate: highest rate of stochastic depth; rises linearly from 0 over the way down.
        use_checkpoint: activation checkpointing of every block in training.

    Raises:
        ValueError: an argument out of its range.
    """

    default_tile = 256  # input pixels, as for the other networks

    def __init__(
        self,
        in_chans: int = 3,
        upscale: int = 1,
        dims: Sequence[int] = (48, 96, 192),
        depths: Sequence[int] = (2, 2, 2),
        shallow_dim: int = 32,
        ssm_d_state: int = 1,
        ssm_ratio: float = 2.0,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths) or not dims or upscale < 1:
            raise ValueError(
                f"dims and depths need one number for each stage, and upscale at least 1; got {list(dims)}, "
                f"{list(depths)}, {upscale}"
            )
        self.in_chans, self.upscale = in_chans, upscale
        self.tile_multiple = PATCH * 2 ** (len(dims) - 1)
        rates = linear_drop_rates(drop_path_rate, tuple(depths))
        blocks = [
            [_block(dim, ssm_d_state, ssm_ratio, mlp_ratio, rate) for rate in stage]
            for dim, stage in zip(dims, rates, strict=True)
        ]
        downs = [downsampling(dims[i], dims[i + 1], "ln", version="v3") for i in range(len(dims) - 1)]
        self.conv_first = nn.Conv2d(in_chans, shallow_dim, 3, padding=1)
        self.patch_embed = patch_embedding(in_chans, dims[0], PATCH, "ln", patch_norm=True, version="v2")
        self.layers = nn.ModuleList(
            UNetStage(stage, down, use_checkpoint) for stage, down in zip(blocks, [*downs, nn.Identity()], strict=True)
        )
        self.up = nn.ModuleList()
        for i in reversed(range(len(dims) - 1)):
            way_up = [_block(dims[i], ssm_d_state, ssm_ratio, mlp_ratio, rate) for rate in rates[i]]
            self.up.append(UpStage(dims[i + 1], dims[i], way_up, use_checkpoint))
        self.enlarge = Enlarge(dims[0], shallow_dim, PATCH)
        self.join = nn.Sequential(
            nn.Conv2d(2 * shallow_dim, shallow_dim, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(shallow_dim, shallow_dim, 3, padding=1),
        )
        self.upsample = Upsample(upscale, shallow_dim) if upscale > 1 else nn.Identity()
        self.conv_last = nn.Conv2d(shallow_dim, in_chans, 3, padding=1)
        nn.init.zeros_(self.conv_last.weight)  # the untrained network is the input, enlarged by bicubic interpolation
        nn.init.zeros_(self.conv_last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] in [0, 1] -> [B, in_chans, H * upscale, W * upscale], not clipped; any H, W >= 1.

        Raises:
            ValueError: the input is not [B, in_chans, H, W].
        """
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"x must be [B, {self.in_chans}, H, W], got shape {tuple(x.shape)}")
        height, width = x.shape[2:]
        x = pad_mirrored(x, self.tile_multiple, repeat_edge=False).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        deep = as_image(self.enlarge(self._u(self.patch_embed(x))))
        features = self.join(torch.cat((shallow, deep), 1)) + shallow
        base = x if self.upscale == 1 else F.interpolate(x, scale_factor=self.upscale, mode="bicubic")
        y = base + self.conv_last(self.upsample(features))
        return y[..., : height * self.upscale, : width * self.upscale].contiguous()

    def load_classifier_weights(self, weights: Weights) -> None:
        """Start the way down from a VSSM's first stages, as ``mambair.load`` gives its state dict.

        It is one of the second generation without gate (``v05_noz``, patches "v2", downsampling "v3").

        Raises:
            ValueError: they do not fit (``dims``, ``depths``, ``ssm_ratio`` ...); they are listed.
        """
        copy_body(self, weights, BODY)

    def _u(self, x: Tensor) -> Tensor:
        """[B, H / 4, W / 4, C] down, up, -> the same shape."""
        skips: list[Tensor] = []
        for stage in self.layers:
            skip, x = stage(x)
            skips.append(skip)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = up(x, skip)
        return x


def _block(dim: int, d_state: int, ratio: float, mlp_ratio: float, drop_path: float) -> VMambaBlock:
    scan = SS2D(dim, d_state=d_state, expand=ratio, conv_bias=False, gate=None)
    mlp = MapMlp(dim, int(mlp_ratio * dim))
    return VMambaBlock(nn.LayerNorm(dim), scan, nn.LayerNorm(dim), mlp, drop_path=drop_path)


@register_detector("VSSMUNet", r"conv_first\.weight", r"patch_embed\.5\.weight", r"enlarge\.linear\.weight")
def detect_vssm_unet(weights: Weights) -> dict[str, Any] | None:
    """The arguments of VSSMUNet that its weights tell."""
    ups = count(weights, r"up\.(\d+)\.")
    if ups is None:
        return None
    depths = [count(weights, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(ups + 1)]
    deepest = weights["up.0.enlarge.linear.weight" if ups else "enlarge.linear.weight"].shape[1]
    dims = [weights[f"up.{i}.reduce.weight"].shape[0] for i in reversed(range(ups))] + [deepest]
    if None in depths:
        return None
    shallow, in_chans = weights["conv_first.weight"].shape[:2]
    kwargs = {
        "in_chans": in_chans,
        "upscale": _detect_upscale(weights),
        "dims": dims,
        "depths": depths,
        "shallow_dim": shallow,
    }
    blocks = prefixes(weights, r"layers\.\d+\.blocks\.0\.")
    if not blocks:  # what the blocks are like has no influence
        return kwargs
    inner = [weights[block + "op.in_proj.weight"].shape for block in blocks]  # (part, whole), as linear layers have it
    hidden = [weights[block + "mlp.fc1.weight"].shape for block in blocks]
    return kwargs | {
        "ssm_d_state": weights[blocks[0] + "op.A_logs"].shape[1],
        "ssm_ratio": shortest_ratio(*((whole, part) for part, whole in inner)),
        "mlp_ratio": shortest_ratio(*((whole, part) for part, whole in hidden)),
    }


def _detect_upscale(weights: Weights) -> int:
    """Every step of the upsampler is a convolution to factor squared as many channels."""
    scale = 1
    for position in range(0, 32, 2):
        step = weights.get(f"upsample.{position}.weight")
        if step is None:
            break
        scale *= round((step.shape[0] // step.shape[1]) ** 0.5)
    return scale
