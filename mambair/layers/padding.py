"""Images made larger for networks that need sides of a certain multiple."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_mirrored(image: Tensor, multiple: int, *, repeat_edge: bool) -> Tensor:
    """Extend an image to the right and to the bottom by its mirror image.

    An image shorter than the extension is mirrored again and again: a b c becomes a b c c b a a b c ... with
    ``repeat_edge`` and a b c b a b c ... without; a single pixel is repeated.

    Args:
        image: [B, C, H, W], H and W at least 1.
        multiple: the sides become the next multiples of it.
        repeat_edge: whether the pixels at the border stand twice.

    Returns:
        [B, C, H', W']; the image itself where nothing is to do.
    """
    for dim in (2, 3):
        side = image.shape[dim]
        wanted = -(-side // multiple) * multiple
        if wanted > side:
            image = image.index_select(dim, _mirrored(side, wanted, repeat_edge, image.device))
    return image


def _mirrored(side: int, wanted: int, repeat_edge: bool, device: torch.device) -> Tensor:
    """int64 [wanted]: 0, 1, ..., side - 1 and back and forth."""
    turn = 2 * side - 1 if repeat_edge else 2 * side - 2  # a place and its mirror image add up to this
    places = torch.arange(wanted, device=device) % (turn + 1 if repeat_edge else max(1, turn))
    return torch.where(places < side, places, turn - places)
