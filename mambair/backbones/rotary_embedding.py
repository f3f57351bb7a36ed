"""Rotary position embedding of image tokens (Su et al., "RoFormer", 2021; on two axes as in EVA-02, 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

THETA = 10000.0


class RotaryEmbedding2d(nn.Module):
    """Turns pairs of neighbouring channels by angles that grow with the row (first half of the channels) or column.

    The two buffers are part of published weights.

    Args:
        dim: half the channels C.
        pt_seq_len: side of the grid the angles are scaled to.
        ft_seq_len: side of the grid of the tokens.
    """

    def __init__(self, dim: int, pt_seq_len: int, ft_seq_len: int) -> None:
        super().__init__()
        steps = torch.arange(ft_seq_len) / ft_seq_len * pt_seq_len
        speeds = 1.0 / THETA ** (torch.arange(0, dim, 2)[: dim // 2].float() / dim)
        angles = torch.outer(steps, speeds).repeat_interleave(2, -1)  # [side, dim]
        rows = angles[:, None].expand(-1, ft_seq_len, -1)
        columns = angles[None].expand(ft_seq_len, -1, -1)
        grid = torch.cat((rows, columns), -1).flatten(0, 1)  # [side * side, 2 * dim]
        self.register_buffer("freqs_cos", grid.cos())
        self.register_buffer("freqs_sin", grid.sin())
        self.freqs_cos: Tensor
        self.freqs_sin: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]; of an odd L, the first token is taken for a class token and left as it is."""
        if tokens.shape[1] % 2:
            return torch.cat((tokens[:, :1], self._turn(tokens[:, 1:])), 1)
        return self._turn(tokens)

    def _turn(self, tokens: Tensor) -> Tensor:
        even, odd = tokens.unflatten(-1, (-1, 2)).unbind(-1)
        quarter = torch.stack((-odd, even), -1).flatten(-2)
        return tokens * self.freqs_cos + quarter * self.freqs_sin
