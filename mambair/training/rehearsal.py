"""Try a training before it begins: a step of the model and a sample of each validation set, leaving nothing behind."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mambair.data.loader import build_test_loader
from mambair.evaluation.trial import MEASURED, channels_taken, require_channels, require_images, try_set
from mambair.models import build_model
from mambair.models.nonfinite_guard import TrainingDiverged
from mambair.models.restoration_model import RestorationModel
from mambair.options.errors import SettingError, made_of
from mambair.training.weights_check import UNCHANGED, weight_sums

TRAINED = ("lq", "gt")  # what our models read of a batch


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

    Our model takes a step with one image of the batch and restores that; a model of BasicSR takes all of them, and
    validates one image of each set.

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
        is_ours = isinstance(model, RestorationModel)
        require_images(batch, "train", opt, TRAINED if is_ours else (), 4)
        taken = channels_taken(opt, getattr(getattr(model, "net_g", None), "in_chans", None))
        channels = require_channels(batch, "train", opt, taken)
        _try_step(batch, opt, model)
        if is_ours:
            _try_restoring(model)
        for label, loader in zip(_validation_labels(opt), loaders, strict=True):
            try_set(label, loader.dataset, opt, taken or channels, MEASURED if is_ours else ())
            if not is_ours:
                with made_of("datasets", label):
                    model.validation(build_test_loader(FirstImage(loader.dataset)), 1, None, False)


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
        text = "the loss or its gradient is not finite in the first step, although the images are"
        raise SettingError(("network_g",), text)
    output, gt = getattr(model, "output", None), getattr(model, "gt", None)
    if isinstance(output, Tensor) and isinstance(gt, Tensor) and output.shape != gt.shape:
        text = f"the output is {list(output.shape)}, but the ground truth {list(gt.shape)} (B, C, H, W)"
        raise SettingError(("network_g",), text)


def _is_finite(batch: Mapping[str, Any]) -> bool:
    return all(bool(value.isfinite().all()) for value in batch.values() if isinstance(value, Tensor))


def _first(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[:1] if isinstance(value, Tensor | list) else value for key, value in batch.items()}


def _try_restoring(model: RestorationModel) -> None:
    """Restore the image of the step, as validations do."""
    with made_of("network_g"):
        model.test()
    if bool(model.lq.isfinite().all()) and not bool(model.output.isfinite().all()):
        text = "after one step the output is not finite; lower train.optim_g.lr, or set train.grad_clip"
        raise SettingError(("train",), text)
