"""JPEG: a training patch is the patch of the compressed image, bit for bit; files pair whatever their suffix."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.data import DatasetError, JPEGArtifactsDataset
from mambair.data.degradations.compression import compressed
from mambair.data.jpeg_artifacts_dataset import compressed_patch
from mambair.images.files import DecodedImage, list_images, read_image, write_image
from mambair.images.lazy_image import LazyImage, in_color, to_float

EXAMPLE = Path("datasets") / "example" / "val_gt"


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    opt = {"type": "JPEGArtifactsDataset", "phase": "train", "dataroot_gt": str(folder), "quality": 10, "gt_size": 48}
    return {key: value for key, value in (opt | changes).items() if value is not Ellipsis}


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("color", ["rgb", "gray", "y"])
@pytest.mark.parametrize("quality", [1, 10, 75, 100])
def test_a_patch_is_that_of_the_compressed_image(repository: Path, color: str, quality: int, subsampling: str) -> None:
    image = in_color(read_image(repository / EXAMPLE / "coffee.png").pixels, color)[:119, :101]
    whole = compressed(image, quality, subsampling)
    rng = np.random.default_rng(0)
    places = [(0, 0), (119 - 30, 101 - 30), (17, 23), (32, 48), *rng.integers(0, 71, (6, 2)).tolist()]
    for top, left in places:
        lq, gt = compressed_patch(LazyImage(image), top, left, 30, quality, subsampling)
        assert np.array_equal(lq, whole[top : top + 30, left : left + 30]), (top, left)
        assert np.array_equal(gt, image[top : top + 30, left : left + 30])


def test_grey_compression_is_that_of_a_file(repository: Path, tmp_path: Path) -> None:
    grey = in_color(read_image(repository / EXAMPLE / "chelsea.png").pixels, "gray")
    Image.fromarray(grey[:, :, 0]).save(tmp_path / "a.jpg", quality=10)
    assert np.array_equal(compressed(grey, 10, "4:2:0"), read_image(tmp_path / "a.jpg").pixels)


def test_in_memory_equals_files_of_the_same_quality(repository: Path, tmp_path: Path) -> None:
    for path in list_images(repository / EXAMPLE):
        grey = in_color(read_image(path).pixels, "gray")
        write_image(tmp_path / "gt" / path.name, DecodedImage(grey))
        stream = io.BytesIO()
        Image.fromarray(grey[:, :, 0]).save(stream, "JPEG", quality=30)
        (tmp_path / "lq").mkdir(exist_ok=True)
        (tmp_path / "lq" / f"{path.stem}.jpg").write_bytes(stream.getvalue())
    common = {"color": "gray", "use_hflip": True, "use_rot": True}
    for phase in ("train", "test"):
        memory = JPEGArtifactsDataset(options(tmp_path / "gt", quality=30, phase=phase, **common))
        files = JPEGArtifactsDataset(
            options(tmp_path / "gt", quality=..., dataroot_lq=str(tmp_path / "lq"), phase=phase, **common)
        )
        assert len(memory) == len(files) == 4
        for index in range(4):
            ours, theirs = (each.sample(index, np.random.default_rng(index)) for each in (memory, files))
            assert torch.equal(ours["lq"], theirs["lq"])
            assert torch.equal(ours["gt"], theirs["gt"])
            assert theirs["lq_path"].endswith(".jpg")
            assert ours["lq"].shape[0] == 1


@pytest.mark.parametrize(("quality", "published"), [(10, 27.82), (20, 30.12), (30, 31.48), (40, 32.43)])
def test_classic5_has_the_published_quality(development_data: Path, quality: int, published: float) -> None:
    # PSNR of the compressed images: Zhang et al., "Beyond a Gaussian Denoiser", 2017, JPEG deblocking, Classic5
    folder = development_data / "data" / "test" / "classic5"
    dataset = JPEGArtifactsDataset(options(folder, phase="test", quality=quality, color="gray", gt_size=...))
    errors = [float((sample["lq"] - sample["gt"]).square().mean()) for sample in (dataset[i] for i in range(5))]
    assert np.mean([-10 * np.log10(error) for error in errors]) == pytest.approx(published, abs=0.005)


def test_a_range_of_qualities_is_drawn_from(repository: Path) -> None:
    dataset = JPEGArtifactsDataset(options(repository / EXAMPLE, quality=[10, 40]))
    errors = [
        float((s["lq"] - s["gt"]).square().mean())
        for s in (dataset.sample(0, np.random.default_rng(n)) for n in range(12))
    ]
    assert max(errors) > 1.5 * min(errors)
    drawn = {dataset._quality(np.random.default_rng(seed)) for seed in range(300)}
    assert drawn == set(range(10, 41))


def test_other_depths_are_compressed_in_8_bits(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (24, 24, 1), dtype=np.uint16)
    write_image(tmp_path / "a.png", DecodedImage(wide))
    sample = JPEGArtifactsDataset(options(tmp_path, phase="test", color="gray", gt_size=...))[0]
    assert np.array_equal(sample["gt"].numpy()[0], to_float(wide)[:, :, 0])
    expected = compressed((np.floor(wide / 257 + 0.5)).astype(np.uint8), 10, "4:4:4")
    assert np.array_equal((sample["lq"].numpy()[0] * 255).round(), expected[:, :, 0])


FAULTS = {
    "neither": ({"quality": ...}, "give quality, to compress in memory, or dataroot_lq"),
    "both": ({"dataroot_lq": "gt"}, "quality: dataroot_lq names images that are compressed already"),
    "zero": ({"quality": 0}, "quality: must be from 1 to 100"),
    "too good": ({"quality": 101}, "quality: must be from 1 to 100"),
    "reversed": ({"quality": [40, 10]}, r"quality: must be from 1 to 100, or \[low, high\]"),
    "three": ({"quality": [10, 20, 30]}, "quality: must be"),
    "range at test": ({"quality": [10, 40], "phase": "test"}, "quality: must be one number in phase test"),
    "fraction": ({"quality": 10.5}, "quality"),
    "scale": ({"scale": 2}, "scale: must be 1: this task keeps the size"),
    "subsampling": ({"subsampling": "4:1:1"}, "subsampling: "),
    "template": ({"quality": ..., "dataroot_lq": "gt", "filename_tmpl": "x"}, "filename_tmpl: must hold {} once"),
}


@pytest.mark.parametrize(("changes", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_faults(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    write_image(tmp_path / "a.png", DecodedImage(np.zeros((48, 48, 3), np.uint8)))
    with pytest.raises(DatasetError, match=text):
        JPEGArtifactsDataset(options(tmp_path, **changes))
