"""Head, body and tail shared by MambaIR and MambaIRv2 (the frame of SwinIR, Liang et al., ICCVW 2021, figure 2).

Image -> convolution -> groups of blocks -> convolution + long skip -> a tail that enlarges, or adds to the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.archs.detectors import Weights
from mambair.layers import TokenNorm, Upsample, UpsampleOneStep, as_image, as_tokens

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # RGB, taken off before the network and put back after it
TAIL_CHANNELS = 64


def residual_convolution(dim: int, resi_connection: str) -> nn.Module:
    """The convolution at the end of a residual branch: "1conv", or "3conv" with a bottleneck to save parameters.

    Raises:
        ValueError: any other name.
    """
    if resi_connection == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    if resi_connection == "3conv":
        narrow = max(1, dim // 4)
        return nn.Sequential(
            nn.Conv2d(dim, narrow, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(narrow, narrow, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(narrow, dim, 3, padding=1),
        )
    raise ValueError(f'resi_connection must be "1conv" or "3conv", got {resi_connection!r}')


def resolve_upscale(upscale: int | None, upsampler: str) -> int:
    """The factor a network really enlarges by; None is the published default (2 with an upsampler, 1 without).

    Raises:
        ValueError: a factor below 1, or above 1 without an upsampler (such a network cannot enlarge).
    """
    if upscale is None:
        return 2 if upsampler else 1
    if upscale < 1:
        raise ValueError(f"upscale must be at least 1, got {upscale}")
    if upscale > 1 and not upsampler:
        raise ValueError(
            f"upscale is {upscale}, but without an upsampler the output has the size of the input; "
            'choose upsampler "pixelshuffle" or "pixelshuffledirect", or upscale 1'
        )
    return upscale


class ResidualGroup(nn.Module):
    """Blocks, a convolution and a skip around both.

    Args:
        residual_group: the blocks, [B, H, W, C] -> [B, H, W, C].
        dim: channels C.
        resi_connection: see ``residual_convolution``.
    """

    def __init__(self, residual_group: nn.Module, dim: int, resi_connection: str = "1conv") -> None:
        super().__init__()
        self.residual_group = residual_group
        self.conv = residual_convolution(dim, resi_connection)

    def forward(self, tokens: Tensor, *context: Any) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]; ``context`` is handed to the blocks."""
        return as_tokens(self.conv(as_image(self.residual_group(tokens, *context)))) + tokens


class RestorationNetwork(nn.Module):
    """The frame; a subclass gives the groups and, where they need more than their input, its own ``forward``.

    Attributes:
        default_tile: the largest side of a tile in input pixels unless the ``Restorer`` is given another.
        tile_multiple: sides of tiles are divisible by it, so that nothing is padded within an image.

    Args:
        groups: modules of the body, [B, H, W, C] -> [B, H, W, C]; they become ``layers``.
        in_chans: channels of image and output.
        embed_dim: channels C of the body.
        upscale: see ``resolve_upscale``.
        img_range: the image is multiplied by it inside the network.
        upsampler: the tail, one of the class's ``UPSAMPLERS``.
        resi_connection: see ``residual_convolution``.
        drop_rate: dropout rate of the first features.
        norm_layer: makes a normalisation from C.
        patch_norm: whether the first features are normalised.

    Raises:
        ValueError: an argument out of its range.
    """

    UPSAMPLERS: ClassVar[tuple[str, ...]] = ("", "pixelshuffle", "pixelshuffledirect")
    default_tile: ClassVar[int] = 256
    tile_multiple: int = 1

    def __init__(
        self,
        groups: Sequence[nn.Module],
        *,
        in_chans: int,
        embed_dim: int,
        upscale: int | None,
        img_range: float,
        upsampler: str,
        resi_connection: str,
        drop_rate: float,
        norm_layer: Callable[[int], nn.Module],
        patch_norm: bool,
    ) -> None:
        super().__init__()
        self._check_upsampler(upsampler)
        self.in_chans = in_chans
        self.embed_dim = embed_dim
        self.upscale = resolve_upscale(upscale, upsampler)
        self.upsampler = upsampler
        self.img_range = float(img_range)
        mean = DIV2K_MEAN if in_chans == 3 else (0.0,)
        # on the CPU also under torch.device("meta"): a buffer outside the state dict could not be filled in later
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = TokenNorm(embed_dim, norm_layer if patch_norm else None)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList(groups)
        self.norm = norm_layer(embed_dim)
        self.conv_after_body = residual_convolution(embed_dim, resi_connection)
        self._add_tail()
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] RGB (or grey) in [0, 1] -> [B, in_chans, H * upscale, W * upscale], contiguous.

        Raises:
            ValueError: the input is not [B, in_chans, H, W].
        """
        return self._restore(x, self._body).contiguous()

    def _restore(self, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        """Everything around ``body``, [B, H, W, C] -> [B, H, W, C]."""
        self._check(x)
        mean = self.mean.to(x)
        x = ((x - mean) * self.img_range).contiguous(memory_format=torch.channels_last)
        first = self.conv_first(x)
        tokens = self.pos_drop(self.patch_embed(as_tokens(first)))
        features = self.conv_after_body(as_image(self.norm(body(tokens)))) + first
        return self._tail(features, x) / self.img_range + mean

    def _check_upsampler(self, upsampler: str) -> None:
        if upsampler not in self.UPSAMPLERS:
            hint = "; real super-resolution uses 'pixelshuffle' here" if upsampler == "nearest+conv" else ""
            known = ", ".join(map(repr, self.UPSAMPLERS))
            raise ValueError(f"{type(self).__name__} has no upsampler {upsampler!r}, it has {known}{hint}")

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"x must be [B, {self.in_chans}, H, W], got shape {tuple(x.shape)}")

    def _body(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C] through all groups."""
        for group in self.layers:
            tokens = group(tokens)
        return tokens

    def _add_tail(self) -> None:
        dim, out, scale = self.embed_dim, self.in_chans, self.upscale
        if self.upsampler == "pixelshuffledirect":
            self.upsample = UpsampleOneStep(scale, dim, out)
        elif self.upsampler == "pixelshuffle":
            self.conv_before_upsample = _conv_before_upsample(dim)
            self.upsample = Upsample(scale, TAIL_CHANNELS)
            self.conv_last = nn.Conv2d(TAIL_CHANNELS, out, 3, padding=1)
        elif self.upsampler == "nearest+conv":
            if scale != 4:
                raise ValueError(f'upsampler "nearest+conv" enlarges by 4 only, got upscale {scale}')
            self.conv_before_upsample = _conv_before_upsample(dim)
            self.conv_up1 = nn.Conv2d(TAIL_CHANNELS, TAIL_CHANNELS, 3, padding=1)
            self.conv_up2 = nn.Conv2d(TAIL_CHANNELS, TAIL_CHANNELS, 3, padding=1)
            self.conv_hr = nn.Conv2d(TAIL_CHANNELS, TAIL_CHANNELS, 3, padding=1)
            self.conv_last = nn.Conv2d(TAIL_CHANNELS, out, 3, padding=1)
        else:
            self.conv_last = nn.Conv2d(dim, out, 3, padding=1)

    def _tail(self, features: Tensor, x: Tensor) -> Tensor:
        """Features [B, C, H, W] and the network's input -> the output image, before the mean is put back."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(features)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(features)))
        if self.upsampler == "nearest+conv":
            features = self.conv_before_upsample(features)
            for convolution in (self.conv_up1, self.conv_up2):
                features = F.leaky_relu(convolution(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))
        return x + self.conv_last(features)


def _conv_before_upsample(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, TAIL_CHANNELS, 3, padding=1), nn.LeakyReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def detect_frame(weights: Weights) -> dict[str, Any] | None:
    """The arguments of ``RestorationNetwork`` that weights tell, or None when they have no such frame."""
    first = weights["conv_first.weight"]  # [C, in_chans, 3, 3]
    tail = _detect_tail(weights, first.shape[1])
    if tail is None or first.dim() != 4:
        return None
    return {
        "in_chans": first.shape[1],
        "embed_dim": first.shape[0],
        "patch_norm": "patch_embed.norm.weight" in weights,
        "upsampler": tail[0],
        "upscale": tail[1],
        "resi_connection": "1conv" if "conv_after_body.weight" in weights else "3conv",
    }


def _detect_tail(weights: Weights, out_channels: int) -> tuple[str, int] | None:
    """Name of the upsampler and its factor."""
    if "conv_up1.weight" in weights:
        return "nearest+conv", 4
    if "conv_before_upsample.0.weight" in weights:
        scale = 1
        for position in range(0, 32, 2):
            step = weights.get(f"upsample.{position}.weight")
            if step is None:
                return "pixelshuffle", scale
            scale *= isqrt(step.shape[0] // step.shape[1])
    if "upsample.0.weight" in weights:
        return "pixelshuffledirect", isqrt(weights["upsample.0.weight"].shape[0] // out_channels)
    return ("", 1) if "conv_last.weight" in weights else None
