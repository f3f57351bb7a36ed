"""Try a training before it begins: a step of the model and a sample of each validation set, leaving nothing behind."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mambair.data.loader import build_test_loader
from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.results import metrics_for
from mambair.images.decoded_image import ImageFileError
from mambair.metrics import calculate_metric, needs_reference
from mambair.models import build_model
from mambair.models.nonfinite_guard import TrainingDiverged
from mambair.models.restoration_model import RestorationModel
from mambair.options.errors import SettingError, made_of
from mambair.training.weights_check import UNCHANGED, weight_sums

CHANNEL_KEYS = ("in_chans", "num_in_ch", "inp_channels")  # as networks of ours and of basicsr call it


class FirstImage:
    """The first image of a data set, as a data set of the same name and attributes."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return min(1, len(self.dataset))

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def rehearse(opt: Mapping[str, Any], batch: Any, loaders: Sequence[Any]) -> None:
    """Refuse options whose parts do not work together, by a model that is thrown away.

    Our model takes a step with one image of the batch; a model of BasicSR with all of them, and validates one image of
    each set.

    Args:
        opt: checked options; not changed.
        batch: the first of the training.
        loaders: of the validation sets.

    Raises:
        SettingError: at the key of the part that fails.
    """
    opt = _alone(opt)
    with _quiet():
        model = build_model(copy.deepcopy(opt))
        channels = _channels(batch, "train", opt, model)
        _try_step(batch, opt, model)
        for label, loader in zip(_validation_labels(opt), loaders, strict=True):
            _try_validation(label, loader.dataset, opt, model, channels)


def _validation_labels(opt: Mapping[str, Any]) -> list[str]:
    return [label for label in opt["datasets"] if label.partition("_")[0] == "val"]


def _alone(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one process that writes nothing and takes a batch at once."""
    changed = copy.deepcopy(dict(opt))
    changed |= {"dist": False, "rank": 0, "world_size": 1}
    changed["path"]["experiments_root"] = None
    changed["train"] |= {"accumulation": 1, "compile": False}
    return changed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing below an error: the training will say all of it again."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _channels(item: Any, label: str, opt: Mapping[str, Any], model: Any, expected: int | None = None) -> int | None:
    """Check that a sample or batch has what the model reads, and images of its channels; returns their number."""
    key, kind = ("datasets", label), opt["datasets"][label]["type"]
    needed = ("lq", "gt") if label == "train" else ("lq",)
    if isinstance(model, RestorationModel) and any(name not in item for name in needed):
        text = f"{kind} gives {', '.join(item)}; {opt['model_type']} reads {' and '.join(needed)}"
        raise SettingError(key, text)
    lq = item.get("lq")
    if not isinstance(lq, Tensor):
        return None
    written = [opt["network_g"][name] for name in CHANNEL_KEYS if name in opt["network_g"]]
    expected = getattr(getattr(model, "net_g", None), "in_chans", written[0] if written else expected)
    channels = lq.shape[-3]
    if expected not in (None, channels):
        name = opt["network_g"]["type"]
        key = (*key, "color") if "color" in opt["datasets"][label] else key
        raise SettingError(key, f"found images of {channels} channel(s); {expected}, as {name} takes, is right")
    return channels


def _try_step(batch: Any, opt: Mapping[str, Any], model: Any) -> None:
    kind = opt["datasets"]["train"]["type"]
    with made_of("model_type"):
        model.update_learning_rate(1, warmup_iter=opt["train"].get("warmup_iter", -1))
    try:
        with made_of("datasets", "train"):
            model.feed_data(_first(batch) if isinstance(model, RestorationModel) else batch)
    except SettingError as error:
        if not isinstance(error.__cause__, KeyError):
            raise
        text = f"{kind} gives {', '.join(batch)}; {opt['model_type']} reads {error.__cause__}"
        raise SettingError(error.key, text) from error
    before = weight_sums(model)
    try:
        with made_of("model_type"):
            model.optimize_parameters(1)
            if before and weight_sums(model) == before:
                model.optimize_parameters(2)  # SOAP only measures in its first step
    except SettingError as error:
        if not isinstance(error.__cause__, TrainingDiverged):  # the training itself says more of it
            raise SettingError(error.key, f"the first training step fails: {error.reason}") from error
    skipped, after = getattr(getattr(model, "guard", None), "in_a_row", 0), weight_sums(model)
    if before and not skipped and after == before:
        raise SettingError(("train",), f"the first step {UNCHANGED}")
    is_finite = not skipped and all(map(math.isfinite, after))
    if not is_finite and opt["train"].get("amp") != "fp16" and _is_finite(batch):
        text = "the loss or its gradient is not finite in the first step, on images that are"
        raise SettingError(("network_g",), text)
    output, gt = getattr(model, "output", None), getattr(model, "gt", None)
    if isinstance(output, Tensor) and isinstance(gt, Tensor) and output.shape != gt.shape:
        text = f"the output is {list(output.shape)}, but the ground truth {list(gt.shape)} (B, C, H, W)"
        raise SettingError(("network_g",), text)


def _is_finite(batch: Mapping[str, Any]) -> bool:
    return all(bool(value.isfinite().all()) for value in batch.values() if isinstance(value, Tensor))


def _first(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[:1] if isinstance(value, Tensor | list) else value for key, value in batch.items()}


def _try_validation(label: str, dataset: Any, opt: Mapping[str, Any], model: Any, channels: int | None) -> None:
    key = ("datasets", label)
    if len(dataset) == 0:
        raise SettingError(key, "there is no image in it")
    try:
        with made_of(*key):
            item = dataset[0]
    except SettingError as error:
        if isinstance(error.__cause__, ImageFileError):  # the validation reports it and measures the others
            return
        raise
    _channels(item, label, opt, model, channels)
    own = opt["datasets"][label].get("metrics")
    metrics, place = (own, (*key, "metrics")) if own else (opt["val"].get("metrics") or {}, ("val", "metrics"))
    metrics = metrics_for(dataset, metrics)
    if "gt" not in item and any(map(needs_reference, metrics.values())):
        raise SettingError(key, f"{opt['datasets'][label]['type']} gives no gt, which the metrics need")
    scale = 1 if "gt" in item else opt["scale"]
    image = item.get("gt", item["lq"])
    if metrics and image.dim() == 3:
        _try_metrics(to_pixels(image)[:, :, ::-1].repeat(scale, 0).repeat(scale, 1), metrics, place)
    if not isinstance(model, RestorationModel):
        with made_of(*key):
            model.validation(build_test_loader(FirstImage(dataset)), 1, None, False)


def _try_metrics(image: np.ndarray, metrics: Mapping[str, Any], place: tuple[str, ...]) -> None:
    """Measure the ground truth of the first image against itself."""
    for name, options in metrics.items():
        with made_of(*place, name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of means of nothing, which are NaN
            value = calculate_metric(image, image, options)
        if math.isnan(value):
            size = f"{image.shape[0]} x {image.shape[1]}"
            raise SettingError((*place, name), f"{options['type']} gives NaN on the first image, of {size} pixels")
