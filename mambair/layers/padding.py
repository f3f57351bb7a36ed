"""Images made larger for networks that need sides of a certain multiple."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_symmetric(image: Tensor, multiple: int) -> Tensor:
    """Extend an image to the right and to the bottom by its mirror image, edge pixels repeated.

    An image shorter than the extension is mirrored again and again: a b c -> a b c c b a a b c ...

    Args:
        image: [B, C, H, W], H and W at least 1.
        multiple: the sides become the next multiples of it.

    Returns:
        [B, C, H', W']; the image itself where nothing is to do.
    """
    for dim in (2, 3):
        side = image.shape[dim]
        wanted = -(-side // multiple) * multiple
        if wanted > side:
            image = image.index_select(dim, _mirrored(side, wanted, image.device))
    return image


def _mirrored(side: int, wanted: int, device: torch.device) -> Tensor:
    """int64 [wanted]: 0, 1, ..., side - 1, side - 1, ..., 1, 0, 0, 1, ..."""
    places = torch.arange(wanted, device=device) % (2 * side)
    return torch.where(places < side, places, 2 * side - 1 - places)
