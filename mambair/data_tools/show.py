"""A contact sheet of a data set: what a network will see, beside what it is to make of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from mambair.data import build_dataset
from mambair.data.loader import TrainingBatches, build_test_loader, build_train_loader
from mambair.images.files import DecodedImage, write_image
from mambair.images.lazy_image import to_uint8
from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable

PAIRS_IN_A_ROW = 4
LARGEST_SIDE = 256  # of a shown picture; of larger ones the middle is shown
_GAP, _CAPTION = 4, 14  # pixels between pictures, and above them for the number of the sample


def show_data(opt: Mapping[str, Any], sheet: Path, *, label: str = "train", count: int = 16) -> Path:
    """Write a contact sheet of the first samples that a run takes, and a text file with what was drawn for each.

    Args:
        opt: checked options; the samples of ``datasets.train`` are those of a training with its ``manual_seed``.
        sheet: the picture to write; each sample is its input, pixels repeated, and its ground truth on the right.
        label: which of ``opt["datasets"]`` to show.
        count: of samples; a set for validation or testing may have fewer.

    Returns:
        The text file, ``sheet`` with the suffix ``.txt``: number, file and degradation of each sample.

    Raises:
        ValueError: the options have no such data set, or ``count`` is not positive.
        DatasetError, ImageFileError: an image of it cannot be used, or ``sheet`` has no suffix of an image format.
    """
    if label not in opt["datasets"]:
        raise ValueError(f"no data set {label!r} in the option file; it has {', '.join(opt['datasets'])}")
    if count < 1:
        raise ValueError(f"count: expected a positive number, got {count}")
    samples = list(itertools.islice(_samples(opt["datasets"][label], opt["manual_seed"]), count))
    pictures = [_pair(number, sample) for number, sample in enumerate(samples)]
    lines = [
        printable(f"{number}: {_of(sample, 'gt_path')}: {_of(sample, 'degradation')}")
        for number, sample in enumerate(samples)
    ]
    write_image(sheet, DecodedImage(_sheet(pictures)))
    text = sheet.with_suffix(".txt")
    with atomic_path(text) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return text


def _samples(options: Mapping[str, Any], seed: int) -> Iterator[Mapping[str, Any]]:
    """Batches of one, as a run takes them."""
    dataset = build_dataset(dict(options))
    if options["phase"] != "train":
        yield from build_test_loader(dataset)
        return
    finish = getattr(dataset, "finish_batch", lambda batch, device: batch)
    loader = build_train_loader(dataset, batch_size=1, seed=seed)
    batches = TrainingBatches(loader, lambda batch: finish(batch, torch.device("cpu")))
    try:
        yield from batches
    finally:
        batches.close()


def _of(sample: Mapping[str, Any], key: str) -> str:
    return str(sample[key][0]) if sample.get(key) else "-"


def _pair(number: int, sample: Mapping[str, Any]) -> np.ndarray:
    """Caption, input and ground truth of a batch of one, [height, width, 3] uint8."""
    lq, gt = sample["lq"], sample.get("gt", sample["lq"])
    scale = max(1, gt.shape[-1] // lq.shape[-1])
    enlarged = lq.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    both = [_middle(image[0].permute(1, 2, 0).numpy()) for image in (enlarged, gt)]
    height, width = (max(image.shape[axis] for image in both) for axis in (0, 1))
    canvas = Image.new("RGB", (2 * width + _GAP, height + _CAPTION), "white")
    for place, image in enumerate(both):
        canvas.paste(Image.fromarray(image), (place * (width + _GAP), _CAPTION))
    ImageDraw.Draw(canvas).text((0, 0), str(number), fill="black")
    return np.asarray(canvas)


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle of an image [H, W, 1 or 3], as [height, width, 3] uint8."""
    top, left = (max(0, (length - LARGEST_SIDE) // 2) for length in image.shape[:2])
    cut = to_uint8(image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE])
    return np.ascontiguousarray(np.broadcast_to(cut, (*cut.shape[:2], 3)))


def _sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures in rows on white, [H, W, 3] uint8."""
    height, width = (max(picture.shape[axis] for picture in pictures) + 2 * _GAP for axis in (0, 1))
    columns = min(len(pictures), PAIRS_IN_A_ROW)
    sheet = np.full((-(-len(pictures) // columns) * height, columns * width, 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height + _GAP, number % columns * width + _GAP
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
