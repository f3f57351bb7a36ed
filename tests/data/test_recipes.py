"""The data sets of the published recipes, run on the example images of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mambair.data import build_dataset
from mambair.data.loader import build_train_loader
from mambair.images.files import DecodedImage, list_images, read_image, write_image
from mambair.options.base_file import read_option_file

OPTIONS = Path(__file__).resolve().parents[2] / "options"
NAMES = sorted(
    path.relative_to(OPTIONS).as_posix() for path in OPTIONS.rglob("*.yml") if "CAR" in path.name or "DN" in path.name
)


@pytest.fixture(scope="module")
def noisy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example images with a camera's noise, more or less, under their own names."""
    folder = tmp_path_factory.mktemp("noisy")
    for path in list_images(repository / "datasets" / "example" / "gt"):
        clean = read_image(path).pixels.astype(np.float64)
        noise = np.random.default_rng(0).normal(0, 1 + np.sqrt(clean) / 2)
        write_image(folder / path.name, DecodedImage(np.clip(clean + noise, 0, 255).round().astype(np.uint8)))
    return folder


def on_examples(found: dict[str, Any], phase: str, repository: Path, noisy: Path) -> dict[str, Any]:
    """The options of a recipe's data set with the example images in place of its own, and patches that fit them."""
    opt = {**found, "phase": phase, "scale": 1, "dataroot_gt": str(repository / "datasets" / "example" / "gt")}
    if "dataroot_lq" in found:
        opt["dataroot_lq"] = str(noisy)
    if "gt_sizes" in found:
        opt |= {"gt_sizes": [size // 8 for size in found["gt_sizes"]], "iters": [1] * len(found["iters"])}
    return opt


def test_all_recipes_are_tried() -> None:
    assert sum("CAR" in name for name in NAMES) == 12
    assert sum("RealDN" in name for name in NAMES) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_data_sets_of_a_recipe_run(name: str, repository: Path, noisy: Path) -> None:
    data = read_option_file(OPTIONS / name).data
    if data["datasets"].get("train", {}).get("type") == "PairedImageDataset":
        pytest.skip("a recipe of this project on pairs of files")
    channels = data["network_g"].get("in_chans", 3)
    for label, found in data["datasets"].items():
        phase = label.partition("_")[0]
        opt = on_examples(found, phase, repository, noisy)
        dataset = build_dataset(opt)
        assert type(dataset).check(opt) == []
        for index in (0, len(dataset) - 1):
            sample = dataset.sample(index, np.random.default_rng(index))
            assert sample["lq"].shape == sample["gt"].shape
            assert sample["lq"].shape[0] == channels
            error = float((sample["lq"] - sample["gt"]).square().mean().sqrt()) * 255
            assert 0.5 < error < 60, "degraded, but no other picture"


def test_the_patches_of_real_denoising_grow(repository: Path, noisy: Path) -> None:
    found = read_option_file(OPTIONS / "train" / "train_MambaIRUNet_RealDN.yml").data["datasets"]["train"]
    dataset = build_dataset(on_examples(found, "train", repository, noisy))
    batches = iter(build_train_loader(dataset, batch_size=2, seed=0))
    assert [next(batches)["lq"].shape[-1] for _ in range(7)] == [16, 20, 24, 32, 40, 48, 48]
