"""Position embeddings for another image size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ClassToken = Literal["first", "middle", "ends"]


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """[1, C, H, W] -> [1, C, *size], bicubic; unchanged where the size fits."""
    if tuple(grid.shape[2:]) == tuple(size):
        return grid
    resized = F.interpolate(grid.float(), size=size, mode="bicubic", align_corners=False)
    return resized.to(grid.dtype)


def resize_position_embedding(
    embedding: Tensor,
    new_grid: tuple[int, int],
    *,
    extra_tokens: int = 1,
    class_token: ClassToken = "first",
    old_grid: tuple[int, int] | None = None,
) -> Tensor:
    """Position embedding of tokens -> the same for another grid of patches.

    Args:
        embedding: [1, M + extra_tokens, C], M patches in raster order.
        new_grid: rows and columns of the new grid.
        extra_tokens: rows that belong to class tokens: 0, 1 or 2.
        class_token: where those rows are: at the start ("first": also the rule of Vim's official fine-tuning code,
            which thereby shifts a middle token's grid by half an image), before patch M // 2 ("middle"), or the first
            and the last ("ends").
        old_grid: rows and columns of the old grid; None for a square one.

    Returns:
        [1, rows * columns + extra_tokens, C]; class rows are unchanged and in the place the rule gives them.

    Raises:
        ValueError: the number of rows fits neither a square grid nor ``old_grid``, or the rule not ``extra_tokens``.
    """
    patches = embedding.shape[1] - extra_tokens
    rows, columns = old_grid or (round(max(patches, 0) ** 0.5),) * 2
    if rows * columns != patches or patches < 1:
        raise ValueError(
            f"embedding has {embedding.shape[1]} rows, {extra_tokens} of them for class tokens; the other {patches} "
            f"are no grid of {rows} x {columns}"
        )
    starts = {"first": extra_tokens, "middle": patches // 2, "ends": 1}
    if class_token not in starts or extra_tokens > 2 or (extra_tokens == 2) != (class_token == "ends"):
        raise ValueError(f"class_token {class_token!r} does not go with extra_tokens {extra_tokens}")
    places = _class_places(class_token, extra_tokens, patches)
    keep = torch.ones(embedding.shape[1], dtype=torch.bool)
    keep[places] = False
    grid = embedding[:, keep].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    resized = resize_grid(grid, new_grid).flatten(2).transpose(1, 2)  # [1, M', C]
    new_places = _class_places(class_token, extra_tokens, resized.shape[1])
    result = resized.new_empty(1, resized.shape[1] + extra_tokens, resized.shape[2])
    keep = torch.ones(result.shape[1], dtype=torch.bool)
    keep[new_places] = False
    result[:, keep] = resized
    result[:, new_places] = embedding[:, places]
    return result


def _class_places(class_token: str, extra_tokens: int, patches: int) -> list[int]:
    """Rows of the class tokens among ``patches`` + ``extra_tokens`` rows."""
    if extra_tokens == 0:
        return []
    return {"first": [0], "middle": [patches // 2], "ends": [0, patches + 1]}[class_token]
