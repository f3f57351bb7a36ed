"""Real noise: two folders, or SIDD's folders of scenes; one clean image may have many noisy ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mambair.data import DatasetError, RealDenoisingDataset
from mambair.data.lmdb_store import LmdbWriter
from mambair.images.files import DecodedImage, list_images, write_image


def picture(level: int) -> DecodedImage:
    return DecodedImage(np.full((24, 28, 3), level, np.uint8))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two scenes as SIDD names them, and one with a single clean image for three noisy ones."""
    for scene, (first, second) in {"0001_S6": (10, 20), "0002_GP": (30, 40)}.items():
        for frame, level in (("010", first), ("011", second)):
            write_image(tmp_path / scene / f"{scene[:4]}_GT_SRGB_{frame}.PNG", picture(level))
            write_image(tmp_path / scene / f"{scene[:4]}_NOISY_SRGB_{frame}.PNG", picture(level + 1))
    write_image(tmp_path / "0003_IP" / "mean_GT.png", picture(50))
    for shot in range(3):
        write_image(tmp_path / "0003_IP" / f"NOISY_{shot}.jpg.png", picture(51))
    return tmp_path


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"type": "RealDenoisingDataset", "phase": "test", "dataroot_gt": str(folder)} | changes


def levels(dataset: RealDenoisingDataset) -> list[tuple[int, int]]:
    samples = [dataset[index] for index in range(len(dataset))]
    return [(round(float(s["gt"][0, 0, 0]) * 255), round(float(s["lq"][0, 0, 0]) * 255)) for s in samples]


def test_scenes_are_paired_by_their_words(scenes: Path) -> None:
    dataset = RealDenoisingDataset(options(scenes))
    assert RealDenoisingDataset.check(options(scenes)) == []
    assert levels(dataset) == [(10, 11), (20, 21), (30, 31), (40, 41), (50, 51), (50, 51), (50, 51)]
    assert dataset[0]["lq_path"].endswith("0001_S6/0001_NOISY_SRGB_010.PNG")
    assert dataset[0]["gt_path"].endswith("0001_S6/0001_GT_SRGB_010.PNG")


def test_training_cuts_patches_at_one_place(scenes: Path) -> None:
    dataset = RealDenoisingDataset(options(scenes, phase="train", gt_size=16, use_hflip=True, use_rot=True))
    for index in range(len(dataset)):
        sample = dataset.sample(index, np.random.default_rng(index))
        assert sample["lq"].shape == sample["gt"].shape == (3, 16, 16)
        assert ((sample["lq"] - sample["gt"]) * 255).round().unique().tolist() == [1]


def test_two_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "input_crops" / f"{name}.png", picture(11))
        write_image(tmp_path / "target_crops" / f"{name}.png", picture(10))
    opt = options(tmp_path / "target_crops", dataroot_lq=str(tmp_path / "input_crops"))
    assert levels(RealDenoisingDataset(opt)) == [(10, 11), (10, 11)]


def test_scenes_in_a_database(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    with LmdbWriter(tmp_path / "scenes.lmdb") as writer:
        for path in list_images(scenes, recursive=True):
            key = path.relative_to(scenes).with_suffix("").as_posix()
            writer.put(key, path.read_bytes(), 24, 28, 3, suffix=path.suffix)
    stored = RealDenoisingDataset(options(tmp_path / "scenes.lmdb", io_backend={"type": "lmdb"}))
    assert levels(stored) == [(10, 11), (20, 21), (30, 31), (40, 41), (50, 51), (50, 51), (50, 51)]


def test_other_words(tmp_path: Path) -> None:
    write_image(tmp_path / "scene" / "real.png", picture(2))
    write_image(tmp_path / "scene" / "mean.png", picture(1))
    assert levels(RealDenoisingDataset(options(tmp_path, gt_word="mean", lq_word="real"))) == [(1, 2)]


def test_faults(scenes: Path) -> None:
    with pytest.raises(DatasetError, match=r"no image has lq_word \(noisy\) in its name; is it right\?"):
        RealDenoisingDataset(options(scenes, lq_word="noisy"))
    with pytest.raises(DatasetError, match=r"lq_word: must differ from gt_word \(GT\)"):
        RealDenoisingDataset(options(scenes, lq_word="GT"))
    with pytest.raises(DatasetError, match="scale: must be 1"):
        RealDenoisingDataset(options(scenes, scale=2))
    (scenes / "0003_IP" / "mean_GT.png").unlink()
    write_image(scenes / "0004" / "0004_GT.png", picture(0))
    with pytest.raises(DatasetError) as raised:
        RealDenoisingDataset(options(scenes))
    lonely, unused = raised.value.faults
    assert lonely.startswith("dataroot_gt: no clean image for NOISY_0.jpg.png, NOISY_1.jpg.png, NOISY_2.jpg.png; ")
    assert unused == "dataroot_gt: no noisy image for 0004_GT.png"


def test_sizes_of_a_pair_must_be_equal(scenes: Path) -> None:
    write_image(scenes / "0001_S6" / "0001_NOISY_SRGB_010.PNG", DecodedImage(np.zeros((20, 28, 3), np.uint8)))
    faults = RealDenoisingDataset.check(options(scenes))
    assert len(faults) == 1
    assert "do not fit" in faults[0]
