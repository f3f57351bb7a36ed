"""The published data set's ``task`` key: one class for all tasks there, one class for each task here."""

from __future__ import annotations

from typing import Any

from mambair.options.faults import KeyPath
from mambair.options.vocabulary import Dropped


def apply_task(options: dict[str, Any], path: KeyPath, dropped: Dropped) -> None:
    """Change the keys of a PairedImageDataset to what its ``task`` makes of it in the published code.

    There, ``denoising_color`` and ``denoising_gray`` with one folder given twice add noise of level ``noise`` to its
    images, and ``denoising_gray`` and ``CAR`` read one channel. Other tasks change nothing.
    """
    task, noise = options.get("task"), options.get("noise")
    if options.get("type") != "PairedImageDataset" or task not in ("denoising_color", "denoising_gray", "CAR"):
        return
    if task != "denoising_color":
        options.setdefault("color", "gray")
    is_noise_added = options.get("dataroot_lq") in (None, options.get("dataroot_gt"))
    if task != "CAR" and is_noise_added and isinstance(noise, int | float):
        for key in ("dataroot_lq", "filename_tmpl"):
            options.pop(key, None)
        options |= {"type": "GaussianDenoisingDataset", "sigma": noise}
        dropped.note((*path, "task"), f"run as GaussianDenoisingDataset with sigma {noise}")
