"""Try a validation or test set before anything is measured: do its images suit the network and the metrics?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.results import metrics_for
from mambair.images.decoded_image import ImageFileError
from mambair.metrics import calculate_metric, needs_reference
from mambair.options.errors import SettingError, made_of

MEASURED = ("lq", "lq_path")  # what `mambair.evaluation.evaluate.measure` reads of every item
CHANNEL_KEYS = ("in_chans", "num_in_ch", "inp_channels")  # as networks of ours and of basicsr call it


def channels_taken(opt: Mapping[str, Any], known: int | None) -> int | None:
    """The channels of the images that ``network_g`` takes: ``known``, or as the option file says, or None."""
    network = opt.get("network_g") or {}
    return next((network[key] for key in CHANNEL_KEYS if key in network), None) if known is None else known


def require_images(item: Any, label: str, opt: Mapping[str, Any], needed: Sequence[str], dimensions: int) -> None:
    """Refuse a data set whose samples or batches lack what is read of them.

    Args:
        item: a sample or a batch.
        label: of the data set in ``opt["datasets"]``.
        needed: keys that it must have; ``lq`` and ``gt`` as tensors of floats, ``lq`` in float32.
        dimensions: of these tensors.

    Raises:
        SettingError: naming what it gives.
    """
    key, kind = ("datasets", label), opt["datasets"][label]["type"]
    if not isinstance(item, Mapping):
        raise SettingError(
            key, f"{kind} gives a value of type {type(item).__name__}; a mapping with lq and gt is right"
        )
    if any(name not in item for name in needed):
        raise SettingError(key, f"{kind} gives {', '.join(item)}; {opt['model_type']} reads {' and '.join(needed)}")
    for name in {"lq", "gt"}.intersection(needed):
        images = item[name]
        found = f"a value of type {type(images).__name__}"
        if isinstance(images, Tensor):
            is_float = images.dtype == torch.float32 if name == "lq" else images.is_floating_point()
            if is_float and images.dim() == dimensions:
                continue
            found = f"{images.dim()} dimensions of {str(images.dtype).removeprefix('torch.')}"
        text = f"{kind} gives {name} as {found}; a tensor of {dimensions} dimensions of float32 is right"
        raise SettingError(key, text)


def require_channels(item: Mapping[str, Any], label: str, opt: Mapping[str, Any], taken: int | None) -> int | None:
    """Refuse inputs [..., C, h, w] of other channels than ``taken``; returns their number, None where it is unknown.

    Raises:
        SettingError: at ``color`` of the data set, where it has that key.
    """
    lq = item.get("lq")
    if not isinstance(lq, Tensor) or lq.dim() < 3:
        return None
    channels = lq.shape[-3]
    if taken not in (None, channels):
        options, name = opt["datasets"][label], (opt.get("network_g") or {}).get("type", "the network")
        key = ("datasets", label, "color") if "color" in options else ("datasets", label)
        raise SettingError(key, f"found images of {channels} channel(s); {taken}, as {name} takes, is right")
    return channels


def try_set(label: str, dataset: Any, opt: Mapping[str, Any], taken: int | None, needed: Sequence[str] = ()) -> None:
    """Refuse a set that cannot be measured: by its first image, and the lowest and the narrowest if headers tell them.

    An image whose pixels cannot be read is passed over: measuring names it and goes on with the others.

    Args:
        label: of the data set in ``opt["datasets"]``.
        dataset: made of these options.
        opt: checked options of a training or a test.
        taken: channels of the images that the network takes, if they are known.
        needed: keys that every item must have.

    Raises:
        SettingError: at the key that is wrong.
    """
    key = ("datasets", label)
    if len(dataset) == 0:
        raise SettingError(key, "there is no image in it")
    for index in _telling_images(dataset):
        try:
            with made_of(*key):
                item = dataset[index]
        except SettingError as error:
            if isinstance(error.__cause__, ImageFileError):
                continue
            raise
        require_images(item, label, opt, needed, 3)
        require_channels(item, label, opt, taken)
        _try_metrics(item, label, opt, dataset)


def _telling_images(dataset: Any) -> list[int]:
    """Numbers of the first, the lowest and the narrowest image."""
    sizes = dataset.sizes() if hasattr(dataset, "sizes") else {}
    extremes = [min(sizes, key=lambda index: sizes[index][axis]) for axis in (0, 1)] if sizes else []
    return sorted({0, *extremes})


def _try_metrics(item: Mapping[str, Any], label: str, opt: Mapping[str, Any], dataset: Any) -> None:
    """Measure the ground truth of an image against itself; without any, the input at the size of the result."""
    options = opt["datasets"][label]
    own = options.get("metrics")
    metrics, place = (own, ("datasets", label, "metrics")) if own else (opt["val"].get("metrics"), ("val", "metrics"))
    metrics = metrics_for(dataset, metrics or {})
    if not metrics:
        return
    if "gt" not in item and any(map(needs_reference, metrics.values())):
        raise SettingError(("datasets", label), f"{options['type']} gives no gt, which the metrics need")
    shown, scale = (item["gt"], 1) if "gt" in item else (item["lq"], opt["scale"])
    if not isinstance(shown, Tensor) or shown.dim() != 3:  # of basicsr's, which measures by itself
        return
    image = np.ascontiguousarray(to_pixels(shown)[:, :, ::-1].repeat(scale, 0).repeat(scale, 1))
    file = Path(str(item.get("gt_path", item.get("lq_path", "an image")))).name
    for name, metric in metrics.items():
        key = (*place, name)
        try:
            with made_of(*key), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of means of nothing, which are NaN
                value = calculate_metric(image, image, metric)
        except SettingError as error:
            raise SettingError(key, f"{file}: {error.reason}") from error
        if math.isnan(value):
            size = f"{image.shape[0]} x {image.shape[1]}"
            raise SettingError(key, f"{file}: {metric['type']} gives NaN, of {size} pixels")
