"""Folders, meta-info files and LMDBs as sources: the same samples from each, several roots, faults by their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import DatasetError, build_dataset
from mambair.data.lmdb_store import LmdbWriter
from mambair.data.loader import build_train_loader
from mambair.data.sources import ImageSource
from mambair.images.files import DecodedImage, EncodedImage, list_images, read_image, write_image
from mambair.images.resize import imresize

NAMES = ("10", "2", "one two")


def store(folder: Path, target: Path) -> None:
    """An LMDB with the files of a folder and those below it."""
    pytest.importorskip("lmdb")
    with LmdbWriter(target) as writer:
        for path in list_images(folder, recursive=True):
            writer.put(
                path.relative_to(folder).with_suffix("").as_posix(), path.read_bytes(), 1, 1, 3, suffix=path.suffix
            )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs in gt and lq (named alike, with other suffixes), more of them in gt2 and lq2 (``x2``), and LMDBs of all."""
    rng = np.random.default_rng(0)
    for suffix, ending in (("", ""), ("2", "x2")):
        for name in NAMES:
            gt = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            write_image(tmp_path / f"gt{suffix}" / f"{name}.png", DecodedImage(gt))
            write_image(tmp_path / f"lq{suffix}" / f"{name}{ending}.bmp", DecodedImage(imresize(gt, 1 / 2)))
    return tmp_path


def options(kind: str, data: Path, lmdb: bool, **changes: Any) -> dict[str, Any]:
    ending = ".lmdb" if lmdb else ""
    opt: dict[str, Any] = {
        "type": kind,
        "phase": "train",
        "scale": 1,
        "dataroot_gt": str(data / f"gt{ending}"),
        "io_backend": {"type": "lmdb" if lmdb else "disk"},
        "gt_size": 16,
        "use_hflip": True,
        "use_rot": True,
    }
    lq = {"dataroot_lq": str(data / f"lq{ending}")}
    own = {
        "PairedImageDataset": {"scale": 2, **lq},
        "BicubicDataset": {"scale": 2},
        "GaussianDenoisingDataset": {"sigma": 20},
        "JPEGArtifactsDataset": {"quality": 30},
        "RealDenoisingDataset": {"dataroot_lq": str(data / f"gt{ending}")},
    }
    return opt | own[kind] | changes


KINDS = [
    "PairedImageDataset",
    "BicubicDataset",
    "GaussianDenoisingDataset",
    "JPEGArtifactsDataset",
    "RealDenoisingDataset",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_data_set_reads_lmdbs_and_gives_the_same_samples(data: Path, kind: str) -> None:
    for name in ("gt", "lq"):
        store(data / name, data / f"{name}.lmdb")
    for phase in ("train", "test"):
        files, database = (build_dataset(options(kind, data, lmdb, phase=phase)) for lmdb in (False, True))
        assert type(database).check(database.opt) == []
        assert [path.stem for path in files.gt_paths] == ["2", "10", "one two"]
        assert [path.name for path in database.gt_paths] == [path.name for path in files.gt_paths]
        for index in range(3):
            ours, theirs = (each.sample(index, np.random.default_rng(index)) for each in (files, database))
            assert torch.equal(ours["lq"], theirs["lq"])
            assert torch.equal(ours["gt"], theirs["gt"])
            assert theirs["gt_path"] == ours["gt_path"].replace("/gt/", "/gt.lmdb/")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", [False, True])
def test_what_is_cached_changes_nothing(data: Path, kind: str, cache: bool) -> None:
    reference, other = (build_dataset(options(kind, data, False, cache=value)) for value in (None, cache))
    for number in range(12):
        ours, theirs = (each.sample(number % 3, np.random.default_rng(number)) for each in (reference, other))
        assert torch.equal(ours["lq"], theirs["lq"])
        assert torch.equal(ours["gt"], theirs["gt"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_rows_are_decoded_than_a_patch_needs(data: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = EncodedImage.rows
    monkeypatch.setattr(EncodedImage, "rows", lambda image, count: asked.append(count) or original(image, count))
    monkeypatch.setattr(EncodedImage, "decoded", lambda _: pytest.fail("the whole image was decoded"))
    pngs = {"dataroot_lq": str(data / "gt"), "scale": 1} if kind == "PairedImageDataset" else {}
    dataset = build_dataset(options(kind, data, False, cache=False, **pngs))
    for seed in range(10):
        dataset.sample(seed % 3, np.random.default_rng(seed))
    images = 2 if kind in ("PairedImageDataset", "RealDenoisingDataset") else 1
    assert len(asked) == 10 * images, "each image is decoded once"
    # colour JPEG needs whole blocks around the patch, which is most of these small images
    assert 16 <= min(asked) < (41 if kind == "JPEGArtifactsDataset" else 40)


@pytest.mark.parametrize("lmdb", [False, True])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_are_used_as_they_are(tmp_path: Path, kind: str, color: str, lmdb: bool) -> None:
    rng = np.random.default_rng(0)
    channels = 3 if color == "rgb" else 1
    for name, side in (("gt", 40), ("lq", 20)):
        pixels = rng.integers(0, 65536, (side, side, channels), dtype=np.uint16)
        write_image(tmp_path / name / "a.png", DecodedImage(pixels))
        if lmdb:
            store(tmp_path / name, tmp_path / f"{name}.lmdb")
    dataset = build_dataset(options(kind, tmp_path, lmdb, phase="test", color=color))
    gt = read_image(tmp_path / "gt" / "a.png").pixels
    assert np.array_equal(dataset[0]["gt"].numpy(), (gt.astype(np.float32) / 65535).transpose(2, 0, 1))
    if kind == "BicubicDataset":
        expected = imresize(gt, 0.5).astype(np.float32) / 65535
        assert np.array_equal(dataset[0]["lq"].numpy(), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_lmdbs(data: Path, workers: int) -> None:
    for name in ("gt", "lq"):
        store(data / name, data / f"{name}.lmdb")
    dataset = build_dataset(options("PairedImageDataset", data, True))
    dataset[0]  # opens both databases before the workers start
    batches = iter(build_train_loader(dataset, batch_size=4, seed=1, num_workers=workers))
    expected = iter(build_train_loader(build_dataset(options("PairedImageDataset", data, False)), batch_size=4, seed=1))
    for _ in range(3):
        assert torch.equal(next(batches)["lq"], next(expected)["lq"])


def test_several_roots_are_paired_one_by_one(data: Path) -> None:
    roots = {"dataroot_gt": [str(data / "gt"), str(data / "gt2")], "filename_tmpl": "{}x2"}
    roots["dataroot_lq"] = [str(data / "lq"), str(data / "lq2")]
    with pytest.raises(DatasetError, match=r"has no partner of 2\.png, 10\.png, one two\.png; looked for 2x2"):
        build_dataset(options("PairedImageDataset", data, False, **roots))
    for name in NAMES:
        (data / "lq" / f"{name}.bmp").rename(data / "lq" / f"{name}x2.bmp")
    dataset = build_dataset(options("PairedImageDataset", data, False, **roots))
    assert len(dataset) == 6
    for gt, lq in zip(dataset.gt_paths, dataset.lq_paths, strict=True):
        assert lq == gt.parents[1] / gt.parent.name.replace("gt", "lq") / f"{gt.stem}x2.bmp"
    with pytest.raises(DatasetError, match="dataroot_lq: found 1 for 2 of dataroot_gt; one for each"):
        build_dataset(options("PairedImageDataset", data, False, **roots | {"dataroot_lq": str(data / "lq")}))


def test_one_ground_truth_may_have_several_folders_of_inputs(data: Path) -> None:
    roots = {"dataroot_gt": [str(data / "gt")] * 2, "dataroot_lq": [str(data / "lq"), str(data / "worse")]}
    for path in list_images(data / "lq"):
        write_image(data / "worse" / path.name, DecodedImage(read_image(path).pixels // 2))
    dataset = build_dataset(options("PairedImageDataset", data, False, phase="test", **roots))
    assert [path.parent.name for path in dataset.lq_paths] == ["lq"] * 3 + ["worse"] * 3
    assert torch.equal(dataset[1]["gt"], dataset[4]["gt"])
    assert not torch.equal(dataset[1]["lq"], dataset[4]["lq"])


def test_databases_are_paired_by_key_or_by_template(data: Path) -> None:
    store(data / "gt2", data / "gt.lmdb")
    store(data / "lq2", data / "lq.lmdb")
    dataset = build_dataset(options("PairedImageDataset", data, True, filename_tmpl="{}x2"))
    assert [path.name for path in dataset.lq_paths] == ["2x2.bmp", "10x2.bmp", "one twox2.bmp"]
    with LmdbWriter(data / "equal.lmdb") as writer:
        for path in list_images(data / "lq2"):
            writer.put(path.stem.removesuffix("x2"), path.read_bytes(), 1, 1, 3)
    # basicsr asks for equal keys and does not look at the template
    equal = {"dataroot_lq": str(data / "equal.lmdb"), "filename_tmpl": "{}x4"}
    assert torch.equal(
        build_dataset(options("PairedImageDataset", data, True, **equal)).sample(1, np.random.default_rng(0))["lq"],
        dataset.sample(1, np.random.default_rng(0))["lq"],
    )


def test_keys_with_folders(data: Path) -> None:
    for name in ("gt", "lq"):
        (data / "tree" / name).mkdir(parents=True)
        (data / name).rename(data / "tree" / name / "Canon")
        (data / f"{name}2").rename(data / "tree" / name / "Nikon")
    for name in NAMES:
        path = data / "tree" / "lq" / "Nikon" / f"{name}x2.bmp"
        path.rename(path.with_name(f"{name}.bmp"))
    for name in ("gt", "lq"):
        store(data / "tree" / name, data / f"{name}.lmdb")
    dataset = build_dataset(options("PairedImageDataset", data, True, phase="test"))
    assert len(dataset) == 6
    sample = dataset[3]
    assert sample["gt_path"].endswith("gt.lmdb/Nikon/2.png")
    assert sample["lq_path"].endswith("lq.lmdb/Nikon/2.bmp")


@pytest.mark.parametrize("lmdb", [False, True])
def test_a_meta_info_file_selects(data: Path, lmdb: bool) -> None:
    if lmdb:
        store(data / "gt", data / "gt.lmdb")
    (data / "meta.txt").write_text("one two.png (40,36,3)\n10.png (40, 36, 3) 1\n")
    dataset = build_dataset(options("BicubicDataset", data, lmdb, meta_info_file=str(data / "meta.txt")))
    assert [path.name for path in dataset.gt_paths] == ["one two.png", "10.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfone two.png\r\n10.png\r\n",
        b"\xef\xbb\xbfone two.png (40,36,3)\r\n\r\n10.png 3\r\n",
        b"one two.png (40, 36)  \n10.png (40,36,3) 1",
    ],
    ids=["names alone", "mark and CRLF", "spaces at the end"],
)
def test_meta_info_files_of_editors(data: Path, content: bytes) -> None:
    (data / "meta.txt").write_bytes(content)
    dataset = build_dataset(options("BicubicDataset", data, False, meta_info_file=str(data / "meta.txt")))
    assert [path.name for path in dataset.gt_paths] == ["one two.png", "10.png"]


def test_a_meta_info_file_of_several_roots(data: Path) -> None:
    (data / "gt2" / "2.png").rename(data / "gt2" / "3.png")
    (data / "meta.txt").write_text("3.png\n2.png\n")
    roots = [str(data / "gt"), str(data / "gt2")]
    opt = options("BicubicDataset", data, False, meta_info_file=str(data / "meta.txt"), dataroot_gt=roots)
    assert [f"{path.parent.name}/{path.name}" for path in build_dataset(opt).gt_paths] == ["gt/2.png", "gt2/3.png"]


def test_faults_of_sources(data: Path) -> None:
    store(data / "gt", data / "gt.lmdb")
    with pytest.raises(DatasetError, match=r"dataroot_gt: .*gt\.lmdb is an LMDB; write io_backend: {type: lmdb}"):
        ImageSource("dataroot_gt", str(data / "gt.lmdb"))
    with pytest.raises(DatasetError, match=r"dataroot_lq: .*lq: is no LMDB"):
        ImageSource("dataroot_lq", str(data / "lq"), backend="lmdb")
    with pytest.raises(DatasetError, match="dataroot_gt: names no folder"):
        ImageSource("dataroot_gt", [])
    (data / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"meta_info_file: .*binary\.txt is not UTF-8"):
        ImageSource("dataroot_gt", str(data / "gt")).select(str(data / "binary.txt"))


def test_a_damaged_image_in_a_database_is_named(data: Path) -> None:
    (data / "gt" / "2.png").write_bytes(b"\x89PNG damaged")
    store(data / "gt", data / "gt.lmdb")
    dataset = build_dataset(options("BicubicDataset", data, True))
    with pytest.raises(ValueError, match=r"gt\.lmdb/2\.png: is "):
        dataset.sample(0, np.random.default_rng(0))
    assert "2.png" in type(dataset).check(dataset.opt)[0]
