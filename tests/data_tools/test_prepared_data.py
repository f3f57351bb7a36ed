"""What ``mambair data prepare`` writes, every data set reads: the same pixels, whatever the names and the depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import build_dataset
from mambair.data.pairing import DatasetError
from mambair.data_tools.prepare import make_lmdb, make_reductions, make_sub_images, write_meta_info
from mambair.data_tools.sub_images import Grid
from mambair.images.files import DecodedImage, list_images, read_image, write_image

pytest.importorskip("lmdb")

SCALE = 2
TASKS: dict[str, dict[str, Any]] = {
    "PairedImageDataset": {"scale": SCALE},
    "RealESRGANPairedDataset": {"scale": SCALE},
    "BicubicDataset": {"scale": SCALE},
    "RealESRGANDataset": {"scale": SCALE, "preset": "photo"},
    "GaussianDenoisingDataset": {"sigma": 20},
    "JPEGArtifactsDataset": {"quality": 30},
    "RealDenoisingDataset": {},
}
NAMES = ("plain", "v1.5.final", "ümlaut été", "one two (1)", "a (3,4,5)", "1e-4", "日本")


def fill(folder: Path, below: str = "") -> None:
    """Images of 8 and 16 bits by turns, 36 x 44 pixels."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        dtype = ("uint8", "uint16")[number % 2]
        pixels = rng.integers(0, np.iinfo(dtype).max + 1, (36, 44, 3)).astype(dtype)
        write_image(folder / below / f"{name}.png", DecodedImage(pixels))


def reductions(folder: Path) -> None:
    fill(folder / "gt")
    make_reductions(folder / "gt", {SCALE: folder / "lq"}, filename_tmpl="{}x2")


def sub_images(folder: Path) -> None:
    fill(folder / "whole")
    make_reductions(folder / "whole", {SCALE: folder / "small"}, filename_tmpl="{}x2")
    make_sub_images(
        folder / "whole",
        folder / "gt",
        Grid(32, 32, scale=SCALE),
        partners=folder / "small",
        partners_target=folder / "lq",
        filename_tmpl="{}x2",
    )


def meta_info(folder: Path) -> None:
    reductions(folder)
    for place in ("a", "b.c d"):
        for role in ("gt", "lq"):
            target = folder / role / place
            target.mkdir()
            for path in list_images(folder / role)[:2]:
                path.rename(target / path.name)
    write_meta_info(folder / "gt", folder / "meta.txt")


def databases(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def stored(folder: Path) -> None:
        make(folder)
        for role in ("gt", "lq"):
            make_lmdb(folder / role, folder / f"{role}.lmdb")

    return stored


# what is prepared, and how many images it has
KINDS: dict[str, tuple[Callable[[Path], None], dict[str, Any], int]] = {
    "lr": (reductions, {}, 7),
    "sub-images": (sub_images, {}, 28),
    "meta-info of nested folders": (meta_info, {"meta_info_file": "meta.txt"}, 7),
    "lmdb": (databases(reductions), {"io_backend": {"type": "lmdb"}}, 7),
    "lmdb of sub-images": (databases(sub_images), {"io_backend": {"type": "lmdb"}}, 28),
    "lmdb of nested folders": (databases(meta_info), {"io_backend": {"type": "lmdb"}}, 7),
    "lmdb with meta-info": (
        databases(meta_info),
        {"io_backend": {"type": "lmdb"}, "meta_info_file": "meta.txt"},
        7,
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("data")
            KINDS[kind][0](made[kind])
        return made[kind]

    return folder


def options(task: str, kind: str, folder: Path, phase: str) -> dict[str, Any]:
    ending = ".lmdb" if "io_backend" in KINDS[kind][1] else ""
    opt = {"type": task, "phase": phase, "gt_size": 16, "dataroot_gt": str(folder / f"gt{ending}")}
    if task in ("PairedImageDataset", "RealESRGANPairedDataset"):
        opt |= {"dataroot_lq": str(folder / f"lq{ending}"), "filename_tmpl": "{}x2"}
    elif task == "RealDenoisingDataset":
        opt |= {"dataroot_lq": opt["dataroot_gt"]}
    own = dict(KINDS[kind][1])
    if "meta_info_file" in own:
        own["meta_info_file"] = str(folder / own["meta_info_file"])
    return opt | TASKS[task] | own


def stored_as(path: str) -> Path:
    """The image file that is at the same place of the folder that a database was made of."""
    return Path(path.replace(".lmdb", ""))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_data_set_reads_every_kind(task: str, kind: str, prepared: Callable[[str], Path]) -> None:
    folder, count = prepared(kind), KINDS[kind][2]
    dataset = build_dataset(options(task, kind, folder, "test"))
    assert type(dataset).check(dataset.opt) == []
    found = {stored_as(str(path)).relative_to(folder / "gt").as_posix() for path in dataset.gt_paths}
    assert len(dataset) == len(found) == count
    assert found == {path.relative_to(folder / "gt").as_posix() for path in list_images(folder / "gt", recursive=True)}
    for index in (0, count // 2, count - 1):
        sample = dataset[index]
        pixels = read_image(stored_as(sample["gt_path"])).pixels
        expected = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
        assert np.array_equal(sample["gt"].permute(1, 2, 0).numpy(), expected)
        if "lq" in str(dataset.opt.get("dataroot_lq")):
            small = read_image(stored_as(sample["lq_path"])).pixels
            expected = small.astype(np.float32) / np.iinfo(small.dtype).max
            assert np.array_equal(sample["lq"].permute(1, 2, 0).numpy(), expected)
            stem = stored_as(sample["gt_path"]).stem
            assert Path(sample["lq_path"]).stem == f"{stem}x2"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["lr", "lmdb of nested folders"])
def test_patches_are_cut(task: str, kind: str, prepared: Callable[[str], Path]) -> None:
    dataset = build_dataset(options(task, kind, prepared(kind), "train"))
    sample = dataset.sample(2, np.random.default_rng(0))
    assert sample["gt"].shape == (3, 16, 16)
    assert sample["lq"].shape == (3, 16 // dataset.options.scale, 16 // dataset.options.scale)
    assert torch.isfinite(sample["lq"]).all()


@pytest.mark.parametrize("kind", ["lr", "lmdb"])
def test_several_kinds_in_one_data_set(kind: str, prepared: Callable[[str], Path]) -> None:
    members = [options(task, kind, prepared(kind), "train") for task in ("BicubicDataset", "PairedImageDataset")]
    for member in members:
        del member["phase"], member["scale"]
    dataset = build_dataset({"type": "MixedDataset", "phase": "train", "scale": SCALE, "datasets": members})
    assert type(dataset).check(dataset.opt) == []
    assert len(dataset) == 14


@pytest.mark.parametrize("make", [make_sub_images, make_reductions])
def test_names_that_differ_in_the_suffix_only(make: Callable[..., Any], tmp_path: Path) -> None:
    for suffix in (".png", ".bmp"):
        write_image(tmp_path / "gt" / f"a{suffix}", DecodedImage(np.zeros((8, 8, 3), np.uint8)))
    target = (tmp_path / "out", Grid(4, 4)) if make is make_sub_images else ({2: tmp_path / "out"},)
    with pytest.raises(DatasetError, match=r"source: several files of one name but for the suffix: a; keep one"):
        make(tmp_path / "gt", *target)
    assert not (tmp_path / "out").exists()


def test_images_further_down_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for below in ("", "deep/er"):
        write_image(tmp_path / "gt" / below / "a.png", DecodedImage(np.zeros((8, 8, 3), np.uint8)))
    assert make_reductions(tmp_path / "gt", {2: tmp_path / "out"}).made == 1
    assert "gt: 1 images in folders below it are not used; name these folders one by one" in caplog.text


def undecodable(folder: Path) -> None:
    """A name of another encoding than UTF-8, which Linux keeps as it is."""
    write_image(folder / "a.png", DecodedImage(np.zeros((8, 8, 3), np.uint8)))
    try:
        (folder / "a.png").rename(folder / "caf\udce9.png")
    except (OSError, UnicodeError):
        pytest.skip("this file system keeps UTF-8 names only")


def test_names_that_are_no_text_are_named(tmp_path: Path) -> None:
    undecodable(tmp_path / "gt")
    with pytest.raises(ValueError, match=r"meta\.txt is not written: 1 images cannot be used") as caught:
        write_meta_info(tmp_path / "gt", tmp_path / "meta.txt")
    assert "its name cannot stand on a line of UTF-8 text" in caught.value.report.failed[0][1]
    assert not (tmp_path / "meta.txt").exists()
    with pytest.raises(ValueError, match="the key must be a name in UTF-8"):
        make_lmdb(tmp_path / "gt", tmp_path / "gt.lmdb")
    assert not (tmp_path / "gt.lmdb").exists()


def test_names_that_basicsr_cannot_read_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "gt")
    make_lmdb(tmp_path / "gt", tmp_path / "database")
    write_meta_info(tmp_path / "gt", tmp_path / "meta.txt")
    messages = [record.getMessage().replace(f"{tmp_path}/", "") for record in caplog.records]
    assert messages == [
        "database: basicsr cannot read keys with a dot: v1.5.final",
        "database: basicsr reads databases only from folders named like name.lmdb",
        "meta.txt: basicsr cannot read names with a space: a (3,4,5).png, one two (1).png, ümlaut été.png",
    ]
