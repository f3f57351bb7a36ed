"""Pictures to look at: what went in, what came out and what was wanted, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mambair.evaluation.evaluate import to_uint8

SIDE = 192  # of the cut-outs, in pixels of the result
GAP = 4  # white columns between them
CONTEXT = 16  # pixels of the input around what is shown


class Restoring(Protocol):
    """The part of the model protocol that restores one image."""

    def feed_data(self, data: Any) -> None: ...
    def test(self) -> None: ...
    def get_current_visuals(self) -> Mapping[str, Tensor]: ...


def side_by_side(visuals: Mapping[str, Tensor], side: int = SIDE) -> np.ndarray:
    """The middle of ``lq`` (pixels repeated), ``result`` and, if there, ``gt``, next to each other.

    Args:
        visuals: [1, C, h, w] and [1, C, H, W] float in [0, 1], as ``model.get_current_visuals()`` gives them.
        side: largest side of each cut-out.

    Returns:
        [height, width, C] uint8 RGB.
    """
    height, width = visuals["result"].shape[-2:]
    scale = max(1, height // visuals["lq"].shape[-2])
    shown = {**visuals, "lq": visuals["lq"].repeat_interleave(scale, -2).repeat_interleave(scale, -1)}
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    cut = [
        to_uint8(shown[key][..., top : top + side, left : left + side])
        for key in ("lq", "result", "gt")
        if key in shown
    ]
    gap = np.full((cut[0].shape[0], GAP, cut[0].shape[2]), 255, dtype=np.uint8)
    parts = [part for picture in cut for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=1)


def middle(item: Mapping[str, Any], side: int = SIDE) -> dict[str, Any]:
    """The middle of a sample as a batch of one: ``side`` pixels of the result and what a network sees around them.

    Args:
        item: of a data set: ``lq`` [C, h, w] and, if there, ``gt`` [C, H, W].
        side: as in `side_by_side`.
    """
    lq, gt = item["lq"], item.get("gt")
    scale = max(1, gt.shape[-1] // lq.shape[-1]) if gt is not None else 1
    wanted = side // scale + 2 * CONTEXT
    height, width = (min(length, wanted) for length in lq.shape[-2:])
    top, left = (lq.shape[-2] - height) // 2, (lq.shape[-1] - width) // 2
    cut = {"lq": lq[..., top : top + height, left : left + width]}
    if gt is not None:
        top, left, height, width = (scale * number for number in (top, left, height, width))
        cut["gt"] = gt[..., top : top + height, left : left + width]
    batch = {key: value.unsqueeze(0) if torch.is_tensor(value) else [value] for key, value in item.items()}
    return batch | {key: value.unsqueeze(0) for key, value in cut.items()}


def samples(model: Restoring, dataset: Any, count: int) -> Iterator[np.ndarray]:
    """``side_by_side`` of the first ``count`` images of a data set, whose middles ``model`` restores as it is now."""
    for index in range(min(count, len(dataset))):
        model.feed_data(middle(dataset[index]))
        model.test()
        yield side_by_side(model.get_current_visuals())


def grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [h, w, C] uint8 below each other on white, [H, W, C]: one row for each."""
    width = max(picture.shape[1] for picture in pictures)
    channels = max(picture.shape[2] for picture in pictures)
    rows = []
    for picture in pictures:
        row = np.full((picture.shape[0] + GAP, width, channels), 255, dtype=np.uint8)
        row[: picture.shape[0], : picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)[:-GAP]
