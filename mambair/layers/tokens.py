"""Images and token maps: one memory, seen as [B, C, H, W] by convolutions and as [B, H, W, C] by all else."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def as_tokens(image: Tensor) -> Tensor:
    """[B, C, H, W] -> contiguous [B, H, W, C]; free for an image in channels-last memory format."""
    return image.permute(0, 2, 3, 1).contiguous()


def as_image(tokens: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, C, H, W], a view: the image is in channels-last memory format."""
    return tokens.permute(0, 3, 1, 2)


class TokenNorm(nn.Module):
    """LayerNorm over the channels of the first features, the ``patch_embed`` of the published networks.

    Args:
        dim: channels C.
        norm_layer: makes the normalisation from C; None leaves the tokens as they are.
    """

    def __init__(self, dim: int, norm_layer: Callable[[int], nn.Module] | None = nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm_layer(dim) if norm_layer is not None else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.norm(tokens)
