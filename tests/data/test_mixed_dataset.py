"""Several data sets in one: shares, exactness, and members that do not fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import DatasetError, MixedDataset, build_dataset
from mambair.data.loader import SampleSequence, TrainingBatches, build_train_loader
from mambair.images.files import DecodedImage, write_image

COUNTS = {"a": 5, "b": 3, "c": 1}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, count in COUNTS.items():
        for number in range(count):
            image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            write_image(tmp_path / folder / f"{number}.png", DecodedImage(image))
    return tmp_path


def mixed(folders: Path, weights: list[float] | None = None, **changes: Any) -> dict[str, Any]:
    members = [
        {"type": "GaussianDenoisingDataset", "dataroot_gt": str(folders / "a"), "sigma": [0, 50], "gt_size": 8},
        {"type": "JPEGArtifactsDataset", "dataroot_gt": str(folders / "b"), "quality": [10, 95], "gt_size": 8},
        {"type": "RealESRGANDataset", "dataroot_gt": str(folders / "c"), "preset": "photo", "gt_size": 8},
    ]
    return {"type": "MixedDataset", "phase": "train", "scale": 1, "datasets": members, "weights": weights} | changes


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        (None, [5, 3, 1]),
        ([1, 1, 1], [5, 5, 5]),
        ([50, 25, 25], [6, 3, 3]),
        ([0.2, 0.6, 0.2], [5, 15, 5]),
        ([1, 1, 8], [5, 5, 40]),
    ],
)
def test_an_epoch_has_the_shares_exactly(folders: Path, weights: list[float] | None, counts: list[int]) -> None:
    dataset = build_dataset(mixed(folders, weights))
    assert len(dataset) == sum(counts)
    sequence = SampleSequence(len(dataset), seed=1)
    for epoch in range(2):
        numbers = range(epoch * len(dataset), (epoch + 1) * len(dataset))
        samples = [dataset.sample(sequence.index(number), sequence.rng(number)) for number in numbers]
        paths = Counter(sample["gt_path"] for sample in samples)
        for folder, count in zip(COUNTS, counts, strict=True):
            seen = [times for path, times in paths.items() if Path(path).parent.name == folder]
            assert sum(seen) == count
            assert len(seen) == COUNTS[folder], "every image occurs"
            assert max(seen) - min(seen) <= 1


def test_batches_are_exact(folders: Path) -> None:
    def first(count: int, **changes: Any) -> list[dict[str, Any]]:
        batches = TrainingBatches(build_train_loader(build_dataset(mixed(folders)), batch_size=4, seed=2, **changes))
        taken = [next(batches) for _ in range(count)]
        batches.close()
        return taken

    whole, rest, shared = first(5), first(2, start=12), first(5, num_workers=2)
    for one, other in zip([*whole[3:], *whole], [*rest, *shared], strict=True):
        assert torch.equal(one["lq"], other["lq"])
        assert one["degradation"] == other["degradation"]
    kinds = {text.split()[0] for batch in whole for text in batch["degradation"]}
    assert {"gaussian", "jpeg"} <= kinds


def test_patches_grow_together(folders: Path) -> None:
    opt = mixed(folders)
    for member in opt["datasets"]:
        member |= {"gt_sizes": [4, 8], "iters": [1, 1]}
        del member["gt_size"]
    dataset = build_dataset(opt)
    assert [dataset.gt_size_at(iteration) for iteration in (0, 1, 5)] == [4, 8, 8]
    assert dataset.sample(0, np.random.default_rng(0), gt_size=4)["lq"].shape == (3, 4, 4)


def change(opt: dict[str, Any], number: int, **keys: Any) -> dict[str, Any]:
    opt["datasets"][number] |= keys
    return opt


def test_faults(folders: Path) -> None:
    def faults(opt: dict[str, Any]) -> str:
        found = MixedDataset.check(opt)
        assert len(found) == 1
        return found[0]

    assert MixedDataset.check(mixed(folders)) == []
    text = "weights: must be one number > 0 for each of the 3 datasets, got [1.0]"
    assert faults(mixed(folders, weights=[1])) == text
    assert "for each of the 3 datasets, got [1.0, 0.0, 1.0]" in faults(mixed(folders, weights=[1, 0, 1]))
    assert faults(change(mixed(folders), 1, quality=[95, 10])).startswith("datasets: number 1: quality: must be from 1")
    assert faults(change(mixed(folders), 2, type="Real")).startswith("datasets: number 2: type: ")
    text = "datasets: number 1: gt_size, gt_sizes and iters must be those of number 0"
    assert faults(change(mixed(folders), 1, gt_size=6)) == text
    text = "datasets: number 2: color: has another number of channels than number 0"
    assert faults(change(mixed(folders), 2, color="gray")) == text
    text = "datasets: number 2: degrade_on: must be workers in a mixture"
    assert faults(change(mixed(folders), 2, degrade_on="device")) == text
    text = "datasets: number 2: gan_gt_usm: a mixture has one target; use gt_usm"
    assert faults(change(mixed(folders), 2, gan_gt_usm=True)) == text
    big = change(mixed(folders), 0, gt_size=24)
    for number in (1, 2):
        change(big, number, gt_size=24)
    found = MixedDataset.check(big)
    assert [fault.split(": gt_size")[0] for fault in found] == ["datasets: number 0", "datasets: number 1"]
    with pytest.raises(DatasetError, match="datasets: "):
        build_dataset(mixed(folders, datasets=[]))


def test_a_mixture_for_validation_is_fixed(folders: Path) -> None:
    opt = mixed(folders, phase="val")
    opt["datasets"] = [{"type": "BicubicDataset", "dataroot_gt": str(folders / name)} for name in ("a", "b")]
    opt |= {"scale": 2}
    dataset = build_dataset(opt)
    assert len(dataset) == 8
    assert dataset[7]["lq"].shape == (3, 10, 10)
    assert torch.equal(dataset[7]["lq"], dataset[7]["lq"])
