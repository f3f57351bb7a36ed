"""Images without ground truth: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.data import DatasetError, build_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in (2, 10, 1):
        pixels = np.random.default_rng(index).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"im{index}.png")
    return tmp_path


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return {"type": "SingleImageDataset", "phase": "test", "scale": 4, "dataroot_lq": str(folder), **more}


def test_items(folder: Path) -> None:
    dataset = build_dataset(options(folder))
    assert [Path(dataset[index]["lq_path"]).name for index in range(3)] == ["im1.png", "im2.png", "im10.png"]
    item = dataset[2]
    pixels = np.random.default_rng(10).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert item.keys() == {"lq", "lq_path"} and not dataset.has_ground_truth
    assert torch.equal(item["lq"], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert build_dataset(options(folder, color="y"))[0]["lq"].shape == (1, 5, 7)


def test_a_selection(folder: Path) -> None:
    (folder / "names.txt").write_text("im10.png\n")
    assert len(build_dataset(options(folder, meta_info_file=str(folder / "names.txt")))) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"phase": "train"}, "phase: images without ground truth cannot be trained on, only validated and tested"),
        ({"dataroot_gt": "."}, "dataroot_gt: Extra inputs are not permitted"),
        ({"dataroot_lq": "nowhere"}, "dataroot_lq: nowhere"),
    ],
    ids=["train", "ground truth", "folder"],
)
def test_refusals(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as refused:
        build_dataset(options(folder, **more))
    assert message in str(refused.value)


def test_check_reads_headers(folder: Path) -> None:
    kind = type(build_dataset(options(folder)))
    assert kind.check(options(folder)) == []
    (folder / "im1.png").write_bytes(b"no image")
    (fault,) = kind.check(options(folder))
    assert fault.startswith("dataroot_lq: ") and "im1.png" in fault
