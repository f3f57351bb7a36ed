"""Self-attention inside windows, plain and shifted (Swin Transformer, Liu et al., ICCV 2021).

Shifted windows wrap around the image; tokens that come from opposite borders must not see each other. Only the windows
at the right and the bottom border are concerned, so there are four masks whatever the image size, and the windows are
brought into an order in which those of one mask stand together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.permutation import inverse_permutation, permute_rows
from mambair.system.tensor_cache import tensor_cache

BARRED = -100.0  # added to the scores of pairs that must not see each other, as in the published networks


@dataclass(frozen=True)
class WindowOrder:
    """Which token goes where.

    Attributes:
        order: int64 [B * H * W]: tokens window by window, windows by kind: inner, right border, bottom border, corner.
        inverse: the way back.
        windows: number of windows of each kind (all are inner ones without a shift).
        area: tokens in a window.
    """

    order: Tensor
    inverse: Tensor
    windows: tuple[int, ...]
    area: int

    def split(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] -> [B * windows, area, C]."""
        return permute_rows(tokens.flatten(0, 2), self.order, self.inverse).unflatten(0, (-1, self.area))

    def merge(self, windows: Tensor, shape: torch.Size) -> Tensor:
        """[B * windows, area, C] -> ``shape`` [B, H, W, C]."""
        return permute_rows(windows.flatten(0, 1), self.inverse, self.order).view(shape)


@tensor_cache(maxsize=16)
def window_order(
    batch: int, height: int, width: int, window_size: int, shift: int, device: torch.device
) -> WindowOrder:
    """The order for images of one size; kept, as it depends on nothing else.

    Raises:
        ValueError: height or width is no multiple of ``window_size``.
    """
    if height % window_size or width % window_size:
        raise ValueError(f"height and width must be multiples of the window size {window_size}, got {height}x{width}")
    down, across = height // window_size, width // window_size
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used in training later
        numbers = torch.arange(batch * height * width, device=device).view(batch, height, width)
        numbers = numbers.roll((-shift, -shift), (1, 2)) if shift else numbers
        windows = numbers.view(batch, down, window_size, across, window_size).transpose(2, 3)
        kinds = [windows]
        if shift:
            kinds = [windows[:, :-1, :-1], windows[:, :-1, -1:], windows[:, -1:, :-1], windows[:, -1:, -1:]]
        order = torch.cat([kind.flatten() for kind in kinds])
        counts = tuple(kind.numel() // window_size**2 for kind in kinds)
        return WindowOrder(order, inverse_permutation(order), counts, window_size**2)


@tensor_cache(maxsize=16)
def border_masks(window_size: int, shift: int, device: torch.device) -> Tensor:
    """What is added to the scores in the four kinds of windows: [4, 1, area, area], 0 or ``BARRED``."""
    with torch.inference_mode(False):
        wrapped = torch.arange(window_size, device=device) >= window_size - shift
        below = wrapped[:, None].expand(window_size, window_size).flatten()
        right = wrapped[None, :].expand(window_size, window_size).flatten()
        apart_rows, apart_columns = below[:, None] != below[None], right[:, None] != right[None]
        nothing = torch.zeros_like(apart_rows)
        kinds = torch.stack((nothing, apart_columns, apart_rows, apart_rows | apart_columns))
        return kinds.unsqueeze(1) * BARRED


def relative_position_index(window_size: int) -> Tensor:
    """int64 [area, area]: which row of a bias table belongs to each pair of tokens of a window."""
    places = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
    offsets = places[:, None] - places[None] + window_size - 1  # [area, area, 2], each 0 ... 2 * window_size - 2
    return offsets[..., 0] * (2 * window_size - 1) + offsets[..., 1]


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with a learnt bias for every relative position.

    Args:
        dim: channels C, a multiple of ``num_heads``.
        window_size: side of the window.
        num_heads: attention heads.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim, got {num_heads} heads for {dim} channels")
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)

    def forward(self, qkv: Tensor, position_index: Tensor, counts: tuple[int, ...], masks: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            qkv: queries, keys and values one after the other [windows, area, 3 * C].
            position_index: see ``relative_position_index``.
            counts: number of windows under each mask; their sum is ``windows``.
            masks: [len(counts), 1, area, area] added to the scores, or None.

        Returns:
            [windows, area, C].
        """
        area = qkv.shape[1]
        query, key, value = qkv.view(*qkv.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table = self.relative_position_bias_table.t().contiguous()  # a gather along rows reads it in order
        bias = table.index_select(1, position_index.flatten()).view(1, self.num_heads, area, area)
        bias = (bias if masks is None else bias + masks).to(qkv.dtype)
        groups = zip(query.split(counts), key.split(counts), value.split(counts), bias.split(1), strict=True)
        attended = [F.scaled_dot_product_attention(q, k, v, attn_mask=b) for q, k, v, b in groups if len(q)]
        return self.proj(torch.cat([group.transpose(1, 2).flatten(2) for group in attended]))
