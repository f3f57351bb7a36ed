"""From an entry of the option file's ``val.metrics`` to a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mambair.registry import METRIC_REGISTRY

# keys of a metric's options that are for whoever compares results, not for the metric itself
NOT_FOR_THE_METRIC = ("type", "better")


def calculate_metric(img: np.ndarray, img2: np.ndarray, options: Mapping[str, Any]) -> float:
    """Measure ``img`` against ``img2`` as ``options`` say.

    Args:
        img, img2: result and ground truth, [H, W, C] in BGR order or [H, W], same shape.
        options: ``type`` names the metric (ours, or ``basicsr/NAME``), ``better`` is passed over, the rest are the
            metric's own arguments (``crop_border``, ``test_y_channel`` ...).

    Raises:
        KeyError: nobody knows the metric.
        ValueError: the images cannot be measured.
    """
    metric = METRIC_REGISTRY.get(options["type"])
    arguments = {key: value for key, value in options.items() if key not in NOT_FOR_THE_METRIC}
    return float(metric(img=img, img2=img2, **arguments))
