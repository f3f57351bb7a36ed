"""Discriminators of adversarial training, under BasicSR's names: they score how real an image looks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from mambair.registry import ARCH_REGISTRY

VGG_SIZES = (128, 256)


class Discriminator(nn.Module):
    """The common base: an image [B, C, H, W] in, scores without a sigmoid out."""


@ARCH_REGISTRY.register()
class UNetDiscriminatorSN(Discriminator):
    """A U-Net with spectral normalisation that scores every pixel (Wang et al., Real-ESRGAN, 2021).

    Args:
        num_in_ch: channels of the image.
        num_feat: width at full resolution; it doubles three times.
        skip_connection: add the features of the way down to those of the way up.
    """

    def __init__(self, num_in_ch: int, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        if num_in_ch < 1 or num_feat < 1:
            raise ValueError(f"num_in_ch and num_feat must be positive, got {num_in_ch} and {num_feat}")
        self.skip_connection = skip_connection
        widths = [num_feat, 2 * num_feat, 4 * num_feat, 8 * num_feat]
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.conv1, self.conv2, self.conv3 = (
            spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)) for width in widths[:3]
        )
        self.conv4, self.conv5, self.conv6 = (
            spectral_norm(nn.Conv2d(2 * width, width, 3, 1, 1, bias=False)) for width in reversed(widths[:3])
        )
        self.conv7 = spectral_norm(nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False))
        self.conv8 = spectral_norm(nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=False))
        self.conv9 = nn.Conv2d(num_feat, 1, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[B, num_in_ch, H, W] -> [B, 1, H, W].

        Raises:
            ValueError: H or W is not a multiple of 8.
        """
        if image.shape[-1] % 8 or image.shape[-2] % 8:
            raise ValueError(f"height and width must be multiples of 8, got {image.shape[-2]} x {image.shape[-1]}")
        features = [_leaky(self.conv0(image))]
        for convolution in (self.conv1, self.conv2, self.conv3):
            features.append(_leaky(convolution(features[-1])))
        x = features.pop()
        for convolution in (self.conv4, self.conv5, self.conv6):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _leaky(convolution(x))
            skipped = features.pop()
            if self.skip_connection:
                x = x + skipped
        return self.conv9(_leaky(self.conv8(_leaky(self.conv7(x)))))


@ARCH_REGISTRY.register()
class VGGStyleDiscriminator(Discriminator):
    """Ten convolutions and two linear layers that give one score (Ledig et al., 2017; Wang et al., ESRGAN, 2018).

    Args:
        num_in_ch: channels of the image.
        num_feat: width of the first layers; it doubles up to eight times that.
        input_size: side of the square images, 128 or 256; ``gt_size`` of the training data must be the same.

    Raises:
        ValueError: another ``input_size``.
    """

    def __init__(self, num_in_ch: int, num_feat: int, input_size: int = 128) -> None:
        super().__init__()
        if input_size not in VGG_SIZES:
            raise ValueError(f"input_size must be one of {', '.join(map(str, VGG_SIZES))}, got {input_size}")
        self.input_size = input_size
        self.conv0_0 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self._add_halving(0, num_feat)
        levels = [1, 2, 4, 8, 8, 8] if input_size == 256 else [1, 2, 4, 8, 8]
        for level in range(1, len(levels)):
            before, width = num_feat * levels[level - 1], num_feat * levels[level]
            self.add_module(f"conv{level}_0", nn.Conv2d(before, width, 3, 1, 1, bias=False))
            self.add_module(f"bn{level}_0", nn.BatchNorm2d(width))
            self._add_halving(level, width)
        self.levels = len(levels)
        self.linear1 = nn.Linear(num_feat * 8 * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def _add_halving(self, level: int, width: int) -> None:
        self.add_module(f"conv{level}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
        self.add_module(f"bn{level}_1", nn.BatchNorm2d(width))

    def forward(self, image: Tensor) -> Tensor:
        """[B, num_in_ch, input_size, input_size] -> [B, 1].

        Raises:
            ValueError: images of another size.
        """
        if tuple(image.shape[-2:]) != (self.input_size, self.input_size):
            height, width = image.shape[-2:]
            raise ValueError(f"images must have input_size {self.input_size} on each side, got {height} x {width}")
        x = _leaky(self.conv0_0(image))
        for level in range(self.levels):
            for number in (0, 1) if level else (1,):
                convolution, norm = (
                    self.get_submodule(f"conv{level}_{number}"),
                    self.get_submodule(f"bn{level}_{number}"),
                )
                x = _leaky(norm(convolution(x)))
        return self.linear2(_leaky(self.linear1(torch.flatten(x, 1))))


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)
