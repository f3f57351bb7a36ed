"""Pictures to look at: input, result and ground truth side by side, with the PSNR of what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mambair.data.restoration_dataset import to_pixels
from mambair.images.resize import imresize
from mambair.metrics import calculate_psnr

SIDE = 192  # of the cut-outs, in pixels of the result
GAP = 4  # white columns between them
LABEL = 14  # rows of the text above each
CONTEXT = 16  # pixels of the input around what is shown


class Restoring(Protocol):
    """The part of the model protocol that restores one image."""

    def feed_data(self, data: Any) -> None: ...
    def test(self) -> None: ...
    def get_current_visuals(self) -> Mapping[str, Tensor]: ...


def side_by_side(visuals: Mapping[str, Tensor], side: int = SIDE) -> np.ndarray:
    """The middle of ``lq`` (bicubically enlarged), ``result`` and, if there, ``gt``, next to each other.

    Above each stands what it is and, with a ground truth, the PSNR of the pixels shown, over all channels.

    Args:
        visuals: [1, C, h, w] and [1, C, H, W] float in [0, 1], as ``model.get_current_visuals()`` gives them.
        side: largest side of each cut-out.

    Returns:
        [LABEL + height, width, C] uint8 RGB.
    """
    height, width = visuals["result"].shape[-2:]
    scale = max(1, height // visuals["lq"].shape[-2])
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    shown = {key: to_pixels(image) for key, image in visuals.items() if key in ("lq", "result", "gt")}
    if scale > 1:
        shown["lq"] = np.asarray(imresize(shown["lq"], scale))
    cut = {key: image[top : top + side, left : left + side] for key, image in shown.items()}
    names = {"lq": "bicubic" if scale > 1 else "input", "result": "result", "gt": "ground truth"}
    panels = []
    for key in ("lq", "result", "gt"):
        if key in cut:
            text = names[key]
            if "gt" in cut and key != "gt":
                text = f"{text} {calculate_psnr(cut[key], cut['gt'], 0):.2f} dB"
            panels.append(_labelled(cut[key], text))
    gap = np.full((len(panels[0]), GAP, panels[0].shape[2]), 255, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def _labelled(image: np.ndarray, text: str) -> np.ndarray:
    """An image [H, W, C] with a line of text above it, as wide as both need."""
    font = ImageFont.load_default()
    width = max(image.shape[1], int(font.getlength(text)) + 1)
    canvas = Image.new("L", (width, LABEL), 255)
    ImageDraw.Draw(canvas).text((0, 1), text, fill=0, font=font)
    panel = np.full((LABEL + image.shape[0], width, image.shape[2]), 255, dtype=np.uint8)
    panel[:LABEL] = np.asarray(canvas)[:, :, None]
    panel[LABEL:, : image.shape[1]] = image
    return panel


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
