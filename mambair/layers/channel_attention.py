"""Channel attention (RCAN, Zhang et al., ECCV 2018) and the convolution block around it, MambaIR's CAB."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor, nn

from mambair.layers.tokens import as_image, as_tokens
from mambair.ops import fused as fused_ops

LightCab = Literal["dilated", "depthwise", "legacy"]
LIGHT_CABS: tuple[str, ...] = get_args(LightCab)


class ChannelAttention(nn.Module):
    """Scale each channel by a factor in (0, 1) computed from the means of all channels.

    Args:
        num_feat: channels C.
        squeeze_factor: the hidden layer has C // squeeze_factor channels, at least one.
    """

    def __init__(self, num_feat: int, squeeze_factor: int = 16) -> None:
        super().__init__()
        squeezed = max(1, num_feat // squeeze_factor)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(num_feat, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, num_feat, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x * self.attention(x)


class CAB(nn.Module):
    """Convolutions that look at the neighbourhood, then channel attention: the local half of a MambaIR block.

    Args:
        num_feat: channels C.
        is_light_sr: the form for light networks, chosen by ``light_cab``.
        compress_ratio: hidden channels of the normal form are C // compress_ratio.
        squeeze_factor: see ChannelAttention; fewer than ``squeeze_factor`` channels work, with one squeezed channel.
        light_cab: "dilated", the current published light form: 1x1 to C // 2, depthwise 3x3, GELU, 1x1, depthwise 3x3
            with dilation 2; "legacy", of the published light weights from before October 2024: the normal form
            with C // 6 hidden channels; "depthwise", the smallest: one depthwise 3x3. Without ``is_light_sr`` unused.

    Raises:
        ValueError: ``light_cab`` is not one of these.
    """

    def __init__(
        self,
        num_feat: int,
        is_light_sr: bool = False,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        light_cab: LightCab = "dilated",
    ) -> None:
        super().__init__()
        if light_cab not in LIGHT_CABS:
            raise ValueError(f"light_cab must be one of {', '.join(LIGHT_CABS)}, got {light_cab!r}")
        if not is_light_sr:
            convolutions = _dense(num_feat, compress_ratio)
        elif light_cab == "dilated":
            convolutions = _dilated(num_feat)
        elif light_cab == "legacy":
            convolutions = _dense(num_feat, 6)
        else:
            convolutions = [_depthwise(num_feat)]
        self.is_dilated = is_light_sr and light_cab == "dilated"
        self.cab = nn.Sequential(*convolutions, ChannelAttention(num_feat, squeeze_factor))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; quickest in channels-last memory format."""
        return self.cab(x)

    def fused(self, x: Tensor, norm: nn.LayerNorm, skip_scale: Tensor) -> Tensor:
        """The block of ``norm(x)``, and x * skip_scale added; x [B, H, W, C], see ``layers.fused``."""
        parts: list[Any] = list(self.cab)
        if self.is_dilated:
            reduce, near, _, expand, far, attention = parts
            y, _ = fused_ops.token_layers(x, reduce, norm=norm)
            _, y = fused_ops.depthwise_layers(y, near, "gelu", expand.weight.flatten(1), expand.bias, keep=False)
            y, _ = fused_ops.depthwise_layers(y, far, "none")
        else:
            *convolutions, attention = parts
            y = as_image(norm(x))
            for convolution in convolutions:
                y = convolution(y)
            y = as_tokens(y)
        scale = attention.attention(as_image(y)).flatten(1)
        return fused_ops.scaled_sum(y, scale, x, skip_scale)


def _dense(num_feat: int, compress_ratio: int) -> list[nn.Module]:
    hidden = max(1, num_feat // compress_ratio)
    return [nn.Conv2d(num_feat, hidden, 3, padding=1), nn.GELU(), nn.Conv2d(hidden, num_feat, 3, padding=1)]


def _dilated(num_feat: int) -> list[nn.Module]:
    hidden = max(1, num_feat // 2)
    return [
        nn.Conv2d(num_feat, hidden, 1),
        _depthwise(hidden),
        nn.GELU(),
        nn.Conv2d(hidden, num_feat, 1),
        _depthwise(num_feat, dilation=2),
    ]


def _depthwise(num_feat: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_feat, num_feat, 3, padding=dilation, dilation=dilation, groups=num_feat)
