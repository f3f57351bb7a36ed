"""Whether a training changes the weights, and whether they are finite: what success means for any model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mambair.models.nonfinite_guard import TrainingDiverged

UNCHANGED = "changed no weight: the learning rate or train.grad_clip is too small for them"


def weight_sums(model: Any) -> list[float]:
    """The sum of each tensor that the model's optimisers train, in float64; empty for a model without optimisers."""
    groups = [group for optimizer in getattr(model, "optimizers", ()) for group in optimizer.param_groups]
    sums = [weight.detach().double().sum() for group in groups for weight in group["params"]]
    return torch.stack(sums).tolist() if sums else []


def require_finite(sums: list[float]) -> None:
    """Refuse weights that cannot be used.

    Raises:
        TrainingDiverged: a sum is NaN or infinite.
    """
    if not all(map(math.isfinite, sums)):
        raise TrainingDiverged(
            "the weights are no longer finite; nothing more is written. Lower the learning rate, set train: grad_clip, "
            "and go on from the last checkpoint"
        )


def require_progress(model: Any, before: list[float], steps: int) -> None:
    """Refuse a number of steps that trained nothing, or ended in skipped ones.

    Args:
        before: `weight_sums` of the model before the steps.

    Raises:
        TrainingDiverged: no sum has changed, one is not finite, more than half of the steps were the last, skipped, or
            the network gives values that are not finite for the last image.
    """
    after = weight_sums(model)
    require_finite(after)
    skipped = getattr(getattr(model, "guard", None), "in_a_row", 0)
    if 2 * skipped > steps:
        raise TrainingDiverged(f"the last {skipped} of {steps} steps were skipped; see the warnings above")
    _require_finite_output(model)
    if before and before == after:
        raise TrainingDiverged(f"the training {UNCHANGED}")


def _require_finite_output(model: Any) -> None:
    """Restore the first image of the last batch, as validations do."""
    fed = getattr(model, "lq", None)
    if not isinstance(fed, Tensor) or not bool(fed[:1].isfinite().all()):
        return
    model.lq = fed[:1]
    model.test()
    model.lq = fed
    if not bool(model.output.isfinite().all()):
        raise TrainingDiverged(
            "the output of the trained network is not finite; lower the learning rate, set train: grad_clip, and go on "
            "from an earlier checkpoint"
        )
