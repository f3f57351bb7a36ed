"""Faults of data sets in option files: the program stops with the file, the line, the key and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]
Refused = Callable[..., list[str]]

PAIRS = "type: PairedImageDataset\n    dataroot_gt: gt\n    dataroot_lq: lq"
# the valid file, as one for tasks that keep the size
SAME_SIZE = [
    ("scale: 4\nmanual", "scale: 1\nmanual"),
    ("upscale: 4", "upscale: 1"),
    ("upsampler: pixelshuffledirect", "upsampler: ''"),
]


@pytest.fixture
def data(workspace: Path) -> Path:
    """More folders: scenes with noise, grey files, a small image, LMDBs whole and not, lists of names."""
    (workspace / "scenes" / "one").mkdir(parents=True)
    for name in ("0001_GT_1.png", "0001_NOISY_1.png"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(workspace / "scenes" / "one" / name)
    (workspace / "broken").mkdir()
    (workspace / "broken" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (workspace / "small").mkdir()
    Image.fromarray(np.zeros((12, 40, 3), np.uint8)).save(workspace / "small" / "a.png")
    (workspace / "names.txt").write_text("a.png (16,16,3)\nc.png (16,16,3)\n")
    (workspace / "no_names.txt").write_text("\n")
    for name in ("whole.lmdb", "half.lmdb"):
        (workspace / name).mkdir()
        (workspace / name / "data.mdb").write_bytes(b"")
    (workspace / "whole.lmdb" / "meta_info.txt").write_text("a.png (16,16,3) 1\nb.png\n")
    return workspace


# what stands in place of the training set's type and folders, and what the message says, `@` being the file
BROKEN: dict[str, tuple[str, list[str]]] = {
    # JPEG
    "jpeg without origin": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt",
        ["@:6: datasets.train: give quality, to compress in memory, or dataroot_lq, the folder of compressed images"],
    ),
    "jpeg with two origins": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    dataroot_lq: gt\n    quality: 10",
        ["@:10: datasets.train.quality: dataroot_lq names images that are compressed already; delete one of the two"],
    ),
    "jpeg quality out of range": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: 101",
        ["@:9: datasets.train.quality: must be from 1 to 100, or [low, high] with low <= high"],
    ),
    "jpeg qualities reversed": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: [40, 10]",
        ["@:9: datasets.train.quality: must be from 1 to 100, or [low, high] with low <= high"],
    ),
    "jpeg quality that is no number": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: high",
        ["@:9: datasets.train.quality: found 'high'; a whole number or a list is right"],
    ),
    "jpeg quality misspelt": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    dataroot_lq: gt\n    qualty: 10",
        ["@:10: datasets.train.qualty: unknown key; did you mean quality?"],
    ),
    "jpeg subsampling": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: 10\n    subsampling: 4:2:2",
        ["@:10: datasets.train.subsampling: found '4:2:2'; '4:2:0' or '4:4:4' is right"],
    ),
    "jpeg data set misspelt": (
        "type: JPEGArtifactDataset\n    dataroot_gt: gt\n    quality: 10",
        ["@:7: datasets.train.type: no data set named 'JPEGArtifactDataset'; did you mean 'JPEGArtifactsDataset'"],
    ),
    # noise
    "sigma missing": (
        "type: GaussianDenoisingDataset\n    dataroot_gt: gt",
        ["@:6: datasets.train.sigma: this required key is missing"],
    ),
    "sigma negative": (
        "type: GaussianDenoisingDataset\n    dataroot_gt: gt\n    sigma: -25",
        ["@:9: datasets.train.sigma: must be a number >= 0, or [low, high] with low <= high"],
    ),
    "real noise, words alike": (
        "type: RealDenoisingDataset\n    dataroot_gt: scenes\n    lq_word: GT",
        ["@:9: datasets.train.lq_word: must differ from gt_word (GT)"],
    ),
    "real noise, nothing noisy": (
        "type: RealDenoisingDataset\n    dataroot_gt: scenes\n    lq_word: noisy",
        ["@:8: datasets.train.dataroot_gt: no image has lq_word (noisy) in its name; is it right?"],
    ),
    "real noise, nothing clean": (
        "type: RealDenoisingDataset\n    dataroot_gt: scenes\n    gt_word: CLEAN",
        ["@:8: datasets.train.dataroot_gt: no clean image for 0001_NOISY_1.png; a clean one has gt_word (CLEAN) in"],
    ),
    "real noise, other sizes": (
        "type: RealDenoisingDataset\n    dataroot_gt: gt\n    dataroot_lq: lq",
        ["@:9: datasets.train.dataroot_lq: ", "a.png: 16 x 16 pixels do not fit ", "expected 4 x 4"],
    ),
    # where images are
    "two folders for one": (
        "type: PairedImageDataset\n    dataroot_gt: [gt, gt]\n    dataroot_lq: gt",
        ["@:9: datasets.train.dataroot_lq: found 1 for 2 of dataroot_gt; one for each, in the same order, is right"],
    ),
    "one of two folders missing": (
        "type: BicubicDataset\n    dataroot_gt: [gt, gtt]",
        ["@:8: datasets.train.dataroot_gt: there is no folder gtt"],
    ),
    "no folder at all": (
        "type: BicubicDataset\n    dataroot_gt: []",
        ["@:8: datasets.train.dataroot_gt: found []; "],
    ),
    "a mapping for a folder": (
        "type: BicubicDataset\n    dataroot_gt: {path: gt}",
        ["@:8: datasets.train.dataroot_gt: found a mapping with path; text or a list is right"],
    ),
    "an image that cannot be read": (
        "type: BicubicDataset\n    dataroot_gt: broken",
        ["@:8: datasets.train.dataroot_gt: ", "broken/a.png: is "],
    ),
    "an image that is too small": (
        "type: BicubicDataset\n    dataroot_gt: small",
        ["@:9: datasets.train.gt_size: ", "small/a.png has 12 x 40 pixels, too few for patches of 16"],
    ),
    "names of missing images": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    meta_info_file: names.txt",
        ["@:9: datasets.train.meta_info_file: ", "names files that ", "lacks: c.png"],
    ),
    "no names": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    meta_info_file: no_names.txt",
        ["@:9: datasets.train.meta_info_file: ", "no_names.txt names no image"],
    ),
    "no file of names": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    meta_info_file: missing.txt",
        ["@:9: datasets.train.meta_info_file: there is no file missing.txt"],
    ),
    # LMDB
    "unknown backend": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    io_backend:\n      type: petrel",
        ["@:10: datasets.train.io_backend.type: found 'petrel'; 'disk' or 'lmdb' is right"],
    ),
    "key of a backend": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    io_backend:\n      typ: disk",
        ["@:10: datasets.train.io_backend.typ: unknown key; did you mean type?"],
    ),
    "a folder that is no LMDB": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    io_backend: {type: lmdb}",
        ["@:8: datasets.train.dataroot_gt: ", "gt: is no LMDB: it has no data.mdb"],
    ),
    "an LMDB taken for a folder": (
        "type: BicubicDataset\n    dataroot_gt: whole.lmdb",
        ["@:8: datasets.train.dataroot_gt: ", "whole.lmdb is an LMDB; write io_backend: {type: lmdb}"],
    ),
    "an unfinished LMDB": (
        "type: BicubicDataset\n    dataroot_gt: half.lmdb\n    io_backend: {type: lmdb}",
        ["@:8: datasets.train.dataroot_gt: ", "half.lmdb: has no meta_info.txt: the database was not finished"],
    ),
    "an LMDB with a strange line": (
        "type: BicubicDataset\n    dataroot_gt: whole.lmdb\n    io_backend: {type: lmdb}",
        ["@:8: datasets.train.dataroot_gt: ", "meta_info.txt:2: found 'b.png'; 'name.png (height,width,channels)"],
    ),
    # patches
    "patches that grow, without steps": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    gt_sizes: [8, 16]",
        ["@:6: datasets.train.iters: must be one positive number of steps for each of gt_sizes"],
    ),
    "patches that grow, other numbers": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    gt_sizes: [8, 16]\n    iters: [5]",
        ["@:10: datasets.train.iters: must be one positive number of steps for each of gt_sizes"],
    ),
    "yes for a flag": (
        "type: BicubicDataset\n    dataroot_gt: gt\n    skip_unreadable: yes",
        ["@:9: datasets.train.skip_unreadable: found 'yes'; true or false is right"],
    ),
    "two faults in one data set": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: best\n    colour: gray",
        [
            "@:9: datasets.train.quality: found 'best'; a whole number or a list is right",
            "@:10: datasets.train.colour: unknown key; did you mean color?",
        ],
    ),
    "a scale that the task has not": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: 10\n    scale: 2",
        [
            "@:10: datasets.train.scale: found 2; 1 is right here: leave it out",
            "@:10: datasets.train.scale: must be 1: this task keeps the size",
        ],
    ),
    "a python tag": (
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: !!python/tuple [10, 40]",
        ["@:9: datasets.train.quality: the tag !!python/tuple is refused; option files hold plain values only"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_data_set_is_named(data: Path, write: Write, refused: Refused, text: str, expected: list[str]) -> None:
    if "{type: lmdb}" in text:
        pytest.importorskip("lmdb")
    path = write((PAIRS, text), *SAME_SIZE)
    lines = refused(path)
    message = "\n".join(lines)
    for part in expected:
        assert part.replace("@", str(path)) in message
    assert len(lines) == sum(part.startswith("@") for part in expected), message


@pytest.mark.parametrize(
    "text",
    [
        "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: [10, 40]",
        "type: JPEGArtifactsDataset\n    dataroot_gt: [gt, gt]\n    dataroot_lq: [gt, gt]",
        "type: RealDenoisingDataset\n    dataroot_gt: scenes",
        "type: GaussianDenoisingDataset\n    dataroot_gt: gt\n    sigma: [0, 50]",
        "type: BicubicDataset\n    dataroot_gt: gt\n    gt_sizes: [8, 16]\n    iters: [5, 5]",
        "type: BicubicDataset\n    dataroot_gt: gt\n    skip_unreadable: true",
    ],
    ids=["jpeg", "jpeg files", "real noise", "noise", "growing patches", "skipping"],
)
def test_whole_ones_are_not(data: Path, write: Write, text: str) -> None:
    from mambair.options import load_options

    opt = load_options(write((PAIRS, text), *SAME_SIZE), is_train=True)
    assert opt["datasets"]["train"]["scale"] == 1


def test_a_range_is_for_training_only(data: Path, write: Write, refused: Refused) -> None:
    text = "type: JPEGArtifactsDataset\n    dataroot_gt: gt\n    quality: [10, 40]"
    changes = [("type: BicubicDataset\n    dataroot_gt: gt", text), (PAIRS, text.replace("[10, 40]", "10")), *SAME_SIZE]
    path = write(*changes)
    fault = "datasets.val.quality: must be one number in phase val; only training draws from a range"
    assert refused(path) == [f"{path}:15: {fault}"]
