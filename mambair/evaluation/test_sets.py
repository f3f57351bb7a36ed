"""Test sets on disk: where they are kept, and their pairs of input and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL

from mambair.data import DatasetError, build_dataset
from mambair.evaluation.suites import NOISE_SEED, TEST_SETS, Suite
from mambair.images.files import list_images, read_image
from mambair.system.errors import RequestError

GROUND_TRUTH = ("HR", "HQ", "GT", "original", "original_png", "GTmod12")
REDUCTIONS = ("LR_bicubic/X{}", "LRbicx{}", "LR_bicubic/x{}", "LRbic/X{}", "LR/X{}")
TEMPLATES = ("{}x%d", "{}", "{}_LRBI_x%d")


class OpenedSet(NamedTuple):
    """One test set at one level of a suite.

    Attributes:
        folder: of the ground truth, or of the images where there is none.
        dataset: items ``{"lq": [C, h, w], "gt": [C, H, W], "gt_path": str}``, float in [0, 1]; or without ground truth
            ``{"lq": [C, h, w], "lq_path": str}``.
        inputs: how the inputs come to be, in words.
    """

    folder: Path
    dataset: Any
    inputs: str


def open_set(root: Path, name: str, suite: Suite, level: int) -> OpenedSet:
    """Find a test set under ``root`` and prepare its inputs.

    Raises:
        RequestError: it is not there.
        DatasetError: its files cannot be used; the message lists every fault.
    """
    home = find_folder(root, name)
    if not suite.has_ground_truth:
        dataset = {"type": "SingleImageDataset", "name": name, "phase": "test", "dataroot_lq": str(home)}
        return OpenedSet(home, build_dataset(dataset), "images as they are, without ground truth")
    folder = next((found for sub in GROUND_TRUTH if (found := _child(home, sub))), home)
    images = list_images(folder)
    if not images:
        raise RequestError(f"{name}: {folder} holds no images, nor does one of its folders {', '.join(GROUND_TRUTH)}")
    opt: dict[str, Any] = {"name": name, "phase": "test", "dataroot_gt": str(folder)}
    if suite.task == "denoise":
        opt |= {"type": "GaussianDenoisingDataset", "sigma": float(level), "noise_seed": NOISE_SEED}
        inputs = f"Gaussian noise of sigma {level}, seed {NOISE_SEED} for every image, not clipped"
    elif suite.task == "jpeg":
        opt |= {"type": "JPEGArtifactsDataset", "quality": level, "color": _grey_form(images)}
        inputs = f"JPEG of quality {level} by Pillow {PIL.__version__}"
    elif (reduced := _find_reductions(home, level)) is not None:
        opt |= {"type": "PairedImageDataset", "scale": level, "dataroot_lq": str(reduced)}
        return OpenedSet(folder, _paired(opt, level), f"reductions from {reduced.relative_to(root)}")
    else:
        opt |= {"type": "BicubicDataset", "scale": level}
        inputs = "bicubic reduction made here, as MATLAB makes it"
    return OpenedSet(folder, build_dataset(opt), inputs)


def find_folder(root: Path, name: str) -> Path:
    """The folder of a test set under ``root``, by any of its usual names in any capitals; an unknown set has its own.

    Raises:
        RequestError: there is none; the message has the names.
    """
    names = (name, *(TEST_SETS[name].folders if name in TEST_SETS else ()))
    for each in names:
        found = _child(root, each)
        if found:
            return found
    raise RequestError(f"{name}: no folder {' or '.join(names)} in {root}")


def _child(folder: Path, path: str) -> Path | None:
    """A folder below another, whatever its capitals."""
    for part in path.split("/"):
        if (folder / part).is_dir():
            folder = folder / part
            continue
        alike = [each for each in sorted(folder.iterdir()) if each.name.lower() == part.lower() and each.is_dir()]
        if not alike:
            return None
        folder = alike[0]
    return folder


def _find_reductions(home: Path, scale: int) -> Path | None:
    candidates = (_child(home, pattern.format(scale)) for pattern in REDUCTIONS)
    return next((found for found in candidates if found), None)


def _paired(opt: dict[str, Any], scale: int) -> Any:
    """The pairs under the first naming of the inputs that fits."""
    faults: list[str] = []
    for template in TEMPLATES:
        try:
            return build_dataset(opt | {"filename_tmpl": template.replace("%d", str(scale))})
        except DatasetError as error:
            faults = faults or error.faults
    raise DatasetError(faults)


def _grey_form(paths: Sequence[Path]) -> str:
    """How images become grey: colour by its luma of 16 to 235, as the published test does; grey as it is."""
    pixels = read_image(paths[0]).pixels
    return "gray" if bool((pixels == pixels[:, :, :1]).all()) else "y"
