"""Feed-forward layers with a depthwise convolution in the middle (MambaIRv2, Guo et al., CVPR 2025)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.tokens import as_image, as_tokens


class ConvFeedForward(nn.Module):
    """Linear, GELU, plus a depthwise convolution of itself, linear ("ConvFFN").

    Args:
        dim: channels C.
        hidden: channels between the linear layers.
        kernel_size: side of the depthwise convolution, odd.
    """

    def __init__(self, dim: int, hidden: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = _DepthwiseGelu(hidden, kernel_size)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class GatedConvFeedForward(nn.Module):
    """Linear, GELU, one half times a depthwise 5x5 convolution of the other, linear ("GatedMLP" of the light network).

    Args:
        dim: channels C.
        hidden: channels after the first linear layer, even.

    Raises:
        ValueError: ``hidden`` is odd.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        if hidden % 2:
            raise ValueError(f"int(mlp_ratio * embed_dim) must be even for a gated feed-forward layer, got {hidden}")
        self.fc1 = nn.Linear(dim, hidden)
        self.sg = _SpatialGate(hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        # two products with halves of one weight: each result is contiguous, one product's halves would not be
        weights, biases = self.fc1.weight.chunk(2), self.fc1.bias.chunk(2)
        values = F.gelu(F.linear(x, weights[0], biases[0]))
        gate = F.gelu(F.linear(x, weights[1], biases[1]))
        return self.fc2(values * self.sg(gate))


class _DepthwiseGelu(nn.Module):
    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"convffn_kernel_size must be odd to keep the image size, got {kernel_size}")
        convolution = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.depthwise_conv = nn.Sequential(convolution, nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        return as_tokens(self.depthwise_conv(as_image(tokens)))


class _SpatialGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)

    def forward(self, tokens: Tensor) -> Tensor:
        return as_tokens(self.conv(as_image(self.norm(tokens))))
