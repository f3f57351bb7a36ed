"""From features to a larger image: sub-pixel convolution (Shi et al., CVPR 2016) in its published arrangements."""

from __future__ import annotations

from torch import nn


class Upsample(nn.Sequential):
    """Convolutions and pixel shuffles that enlarge features: [B, C, H, W] -> [B, C, H * scale, W * scale].

    Args:
        scale: a power of two (a chain of x2 steps) or 3.
        num_feat: channels C.

    Raises:
        ValueError: any other scale.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        if scale == 3:
            steps = [3]
        elif scale >= 1 and scale & (scale - 1) == 0:
            steps = [2] * (scale.bit_length() - 1)
        else:
            raise ValueError(f"pixel shuffling enlarges by 3 or by a power of two, got a scale of {scale}")
        modules: list[nn.Module] = []
        for step in steps:
            modules += [nn.Conv2d(num_feat, num_feat * step**2, 3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*modules)


class UpsampleOneStep(nn.Sequential):
    """One convolution and one pixel shuffle from features to the image: [B, C, H, W] -> [B, out, H * scale, W * scale].

    The tail of light networks, which have no features at full resolution.
    """

    def __init__(self, scale: int, num_feat: int, num_out_ch: int) -> None:
        super().__init__(nn.Conv2d(num_feat, scale**2 * num_out_ch, 3, padding=1), nn.PixelShuffle(scale))
