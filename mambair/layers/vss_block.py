"""VSSBlock: one block of MambaIR (Guo et al., ECCV 2024, figure 3: "residual state-space block")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mambair.layers import fused
from mambair.layers.channel_attention import CAB, LightCab
from mambair.layers.drop_path import DropPath
from mambair.layers.ss2d import SS2D
from mambair.layers.tokens import as_image, as_tokens

_DEFAULT_NORM = partial(nn.LayerNorm, eps=1e-6)  # the published default; the networks pass LayerNorm with eps 1e-5


class VSSBlock(nn.Module):
    """A global step (SS2D) and a local step (CAB), each normalised and added to a scaled copy of its input.

    Args:
        hidden_dim: channels C.
        drop_path: rate of stochastic depth of the SS2D branch.
        norm_layer: makes the first normalisation from C (the second is LayerNorm with its default eps).
        attn_drop_rate: dropout rate of SS2D's output.
        d_state: state size N.
        expand: inner channels of SS2D are int(expand * C).
        is_light_sr: the light convolution block.
        light_cab: which light convolution block, see CAB.
    """

    def __init__(
        self,
        hidden_dim: int,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = _DEFAULT_NORM,
        attn_drop_rate: float = 0.0,
        d_state: int = 16,
        expand: float = 2.0,
        is_light_sr: bool = False,
        light_cab: LightCab = "dilated",
    ) -> None:
        super().__init__()
        self.ln_1 = norm_layer(hidden_dim)
        self.self_attention = SS2D(hidden_dim, d_state=d_state, expand=expand, dropout=attn_drop_rate)
        self.drop_path = DropPath(drop_path)
        self.skip_scale = nn.Parameter(torch.ones(hidden_dim))
        self.conv_blk = CAB(hidden_dim, is_light_sr, light_cab=light_cab)
        self.ln_2 = nn.LayerNorm(hidden_dim)
        self.skip_scale2 = nn.Parameter(torch.ones(hidden_dim))

    def forward(self, x: Tensor, x_size: tuple[int, int] | None = None) -> Tensor:
        """Tokens in raster order [B, H * W, C] with ``x_size`` = (H, W), or a map [B, H, W, C] without; same shape out.

        Raises:
            ValueError: the number of tokens is not H * W, or tokens come without ``x_size``.
        """
        tokens = _as_map(x, x_size)
        is_fused = fused.runs(self, tokens)
        return self._local(self._global(tokens, is_fused), is_fused).view(x.shape)

    def _global(self, x: Tensor, is_fused: bool) -> Tensor:
        if is_fused and isinstance(self.ln_1, nn.LayerNorm) and self.self_attention.can_fuse():
            return self.self_attention.fused(x, self.ln_1, self.skip_scale)
        return torch.addcmul(self.drop_path(self.self_attention(self.ln_1(x))), x, self.skip_scale)

    def _local(self, x: Tensor, is_fused: bool) -> Tensor:
        if is_fused:
            return self.conv_blk.fused(x, self.ln_2, self.skip_scale2)
        return torch.addcmul(as_tokens(self.conv_blk(as_image(self.ln_2(x)))), x, self.skip_scale2)


def _as_map(x: Tensor, x_size: tuple[int, int] | None) -> Tensor:
    """[B, H * W, C] or [B, H, W, C] -> [B, H, W, C]."""
    if x_size is None:
        if x.dim() != 4:
            raise ValueError(f"x must be [B, H, W, C] when x_size is not given, got shape {tuple(x.shape)}")
        return x
    height, width = x_size
    if x.dim() != 3 or x.shape[1] != height * width:
        raise ValueError(f"x must be [B, {height} * {width}, C] for x_size {x_size}, got shape {tuple(x.shape)}")
    return x.reshape(x.shape[0], height, width, x.shape[2])
