"""The part of an image where restoration shows, cut from every result, as data that an HTML file can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

THUMBNAIL = 128
STRIDE = 8


def busiest_place(image: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """The square with the most detail: the largest sum of squared differences between neighbours.

    Args:
        image: the ground truth, uint8 [H, W, C]; the choice depends on no method.
        side: of the square; images smaller than that are taken whole.

    Returns:
        top, left, height, width.
    """
    grey = image.astype(np.float64).mean(axis=2)
    height, width = min(side, grey.shape[0]), min(side, grey.shape[1])
    detail = np.zeros(grey.shape)
    detail[:-1] += np.diff(grey, axis=0) ** 2
    detail[:, :-1] += np.diff(grey, axis=1) ** 2
    sums = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops = np.arange(0, grey.shape[0] - height + 1, STRIDE)
    lefts = np.arange(0, grey.shape[1] - width + 1, STRIDE)
    inside = (
        sums[np.ix_(tops + height, lefts + width)]
        - sums[np.ix_(tops, lefts + width)]
        - sums[np.ix_(tops + height, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(tops[row]), int(lefts[column]), height, width


def cut(image: np.ndarray, place: tuple[int, int, int, int], scale: int = 1) -> np.ndarray:
    """The pixels of ``place`` in an image that is ``scale`` times smaller than the ground truth."""
    top, left, height, width = place
    rows = slice(top // scale, max(top // scale + 1, (top + height) // scale))
    columns = slice(left // scale, max(left // scale + 1, (left + width) // scale))
    return image[rows, columns]


def as_data_uri(image: np.ndarray) -> str:
    """uint8 [H, W, 1 or 3] as ``data:image/png;base64,...``: every pixel as it is."""
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail(image: np.ndarray, place: tuple[int, int, int, int]) -> str:
    """The whole image, small, with a frame around ``place``, as ``data:image/jpeg;base64,...``."""
    picture = Image.fromarray(np.ascontiguousarray(image.repeat(3, 2) if image.shape[2] == 1 else image))
    top, left, height, width = place
    factor = min(1.0, THUMBNAIL / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))
    box = [round(value * factor) for value in (left, top, left + width - 1, top + height - 1)]
    ImageDraw.Draw(picture).rectangle((box[0], box[1], max(box[0], box[2]), max(box[1], box[3])), outline=(255, 0, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
