"""From an entry of the option file's ``val.metrics`` to a number."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from mambair.registry import METRIC_REGISTRY

# keys of a metric's options that are for whoever compares results, not for the metric itself
NOT_FOR_THE_METRIC = ("type", "better")


def needs_reference(options: Mapping[str, Any]) -> bool:
    """Whether the metric that ``options`` name compares with the ground truth, its argument ``img2``.

    Raises:
        KeyError: nobody knows the metric.
    """
    return "img2" in inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters


def calculate_metric(img: np.ndarray, img2: np.ndarray | None, options: Mapping[str, Any]) -> float:
    """Measure ``img`` against ``img2``, or alone, as ``options`` say.

    Args:
        img, img2: result and ground truth, [H, W, C] in BGR order or [H, W], same shape; ``img2`` may be None for
            metrics that need none.
        options: ``type`` names the metric (ours, or ``basicsr/NAME``), ``better`` is passed over, the rest are the
            metric's own arguments (``crop_border``, ``test_y_channel`` ...).

    Raises:
        KeyError: nobody knows the metric.
        ValueError: the images cannot be measured.
    """
    metric = METRIC_REGISTRY.get(options["type"])
    arguments = {key: value for key, value in options.items() if key not in NOT_FOR_THE_METRIC}
    if not needs_reference(options):
        return float(metric(img=img, **arguments))
    if img2 is None:
        raise ValueError(f"{options['type']} needs the ground truth; set dataroot_gt, or choose calculate_niqe")
    return float(metric(img=img, img2=img2, **arguments))
