"""Between pixels and tokens: the four directions of an image, and an order given by an index.

Directions, as everywhere in this package: 0 along the rows from the top left, 1 along the columns from the top left,
2: 0 backwards, 3: 1 backwards. Letters: B batch, L = H * W tokens, P any number of channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_tokens(image: Tensor, direction: int) -> Tensor:
    """[B, H, W, P] -> [B, L, P] in the order of the scan."""
    tokens = (image.transpose(1, 2) if direction % 2 else image).flatten(1, 2)
    return tokens.flip(1) if direction >= 2 else tokens


def to_image(tokens: Tensor, direction: int, height: int, width: int) -> Tensor:
    """[B, L, P] in the order of the scan -> [B, H, W, P]."""
    tokens = tokens.flip(1) if direction >= 2 else tokens
    if direction % 2:
        return tokens.unflatten(1, (width, height)).transpose(1, 2)
    return tokens.unflatten(1, (height, width))


def gather(t: Tensor, index: Tensor) -> Tensor:
    """t [B, L, ...] at the places of ``index`` [B, L]."""
    flat = t.flatten(2)
    return flat.gather(1, index.unsqueeze(-1).expand(-1, -1, flat.shape[2])).view(t.shape)


def scatter(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens [B, L, P] -> the same, token t at place ``index[b, t]``."""
    return torch.zeros_like(tokens).scatter(1, index.unsqueeze(-1).expand_as(tokens), tokens)
