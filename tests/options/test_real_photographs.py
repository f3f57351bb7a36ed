"""Option files in Real-ESRGAN's layout, mixtures of data sets, and metrics of single sets."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mambair.options import load_options
from mambair.options.base_file import read_option_file
from mambair.options.json_schema import option_file_schema

Write = Callable[..., Path]
Refused = Callable[..., list[str]]

PAIRS = "type: PairedImageDataset\n    dataroot_gt: gt\n    dataroot_lq: lq"
SEED = "manual_seed: 1\n"

RECIPE = Path(__file__).resolve().parents[1] / "golden" / "realesrgan"
# the degradations of the published option files: the first half stands in the data set, the second at the top level
FIRST_HALF = textwrap.indent((RECIPE / "first_half.yml").read_text(encoding="utf-8"), "    ")
SECOND_HALF = (RECIPE / "second_half.yml").read_text(encoding="utf-8")
TOP_LEVEL = f"""\
manual_seed: 1
gt_usm: True
{SECOND_HALF}gt_size: 16
queue_size: 180
"""
SYNTHETIC = f"""\
type: RealESRGANDataset
    dataroot_gt: gt
    meta_info: names.txt
{FIRST_HALF}    use_hflip: True
    use_rot: False"""
FULL = ((SEED, TOP_LEVEL), (PAIRS, SYNTHETIC))


@pytest.fixture(autouse=True)
def names(workspace: Path) -> None:
    (workspace / "names.txt").write_text("b.png\n")
    (workspace / "pairs.txt").write_text("a.png, b.png\n")


def without_defaults(opt: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in opt.items() if key not in ("meta_info",)}


def test_the_published_layout_is_the_default(write: Write) -> None:
    train = load_options(write(*FULL), is_train=True)["datasets"]["train"]
    short = "type: RealESRGANDataset\n    dataroot_gt: gt\n    use_hflip: true"
    plain = load_options(write((PAIRS, short)), is_train=True)["datasets"]["train"]
    assert without_defaults(train) == without_defaults(plain)
    assert train["gt_size"] == 16
    assert train["resize_range2"] == [0.3, 1.2]


def test_the_published_layout_passes_the_json_schema(write: Write) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(option_file_schema()))
    jsonschema.validate(read_option_file(write(*FULL)).data, schema)


def test_values_reach_the_data_set(write: Write) -> None:
    changed = TOP_LEVEL.replace("jpeg_range: [30, 95]", "jpeg_range: [60, 70]")
    opt = load_options(write((SEED, changed + "l1_gt_usm: True\ngan_gt_usm: False\n"), FULL[1]), is_train=True)
    train = opt["datasets"]["train"]
    assert (train["jpeg_range"], train["l1_gt_usm"], train["gan_gt_usm"]) == ([60, 70], True, False)
    assert "jpeg_range" not in opt


def test_override_from_the_command_line(write: Write) -> None:
    opt = load_options(write(*FULL), is_train=True, overrides=["jpeg_range=[50,60]", "datasets:train:sinc_prob=0"])
    assert opt["datasets"]["train"]["jpeg_range"] == [50, 60]
    assert opt["datasets"]["train"]["sinc_prob"] == 0


def test_pairs_for_fine_tuning(write: Write) -> None:
    top = SEED + "l1_gt_usm: True\npercep_gt_usm: True\ngan_gt_usm: False\nhigh_order_degradation: False\n"
    pairs = "type: RealESRGANPairedDataset\n    dataroot_gt: gt\n    dataroot_lq: lq\n    meta_info: pairs.txt"
    train = load_options(write((SEED, top), (PAIRS, pairs)), is_train=True)["datasets"]["train"]
    assert train["high_order_degradation"] is False
    assert train["gan_gt_usm"] is False


BROKEN = {
    "both places, other values": (
        (SEED, TOP_LEVEL),
        (PAIRS, SYNTHETIC + "\n    jpeg_range: [40, 95]"),
        ["@:12: jpeg_range: found [30, 95], but datasets.train.jpeg_range is [40, 95]; keep one of the two"],
    ),
    "a wrong value at the top level": (
        (SEED, TOP_LEVEL.replace("noise_range: [1, 30]", "noise_range: [30, 1]")),
        (PAIRS, SYNTHETIC),
        ["@:9: datasets.train.noise_range: must be [low, high] with 0 <= low <= high, got [30.0, 1.0]"],
    ),
    "weights of another number": (
        (SEED, SEED),
        (PAIRS, SYNTHETIC.replace("kernel_prob: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]", "kernel_prob: [1, 2]", 1)),
        ["@:12: datasets.train.kernel_prob: expected one weight for each of kernel_list, got 2"],
    ),
    "a misspelt key": (
        (SEED, SEED),
        (PAIRS, SYNTHETIC.replace("final_sinc_prob", "final_sink_prob")),
        ["@:24: datasets.train.final_sink_prob: unknown key; did you mean final_sinc_prob?"],
    ),
    "top-level keys that the data set does not know": (
        (SEED, SEED + "gt_usm: True\n"),
        (PAIRS, PAIRS),
        ["@:5: gt_usm: unknown key; known here: "],
    ),
    "synthesis without synthesis": (
        (SEED, SEED + "high_order_degradation: False\n"),
        (PAIRS, SYNTHETIC),
        ["@:5: datasets.train.high_order_degradation: false means pairs of files: type RealESRGANPairedDataset"],
    ),
    "metrics of a training set": (
        (SEED, SEED),
        (PAIRS, SYNTHETIC + "\n    metrics: {psnr: {type: calculate_psnr, crop_border: 0}}"),
        ["@:27: datasets.train.metrics: a training set is not measured; "],
    ),
}


@pytest.mark.parametrize("label", BROKEN)
def test_a_fault_is_named(label: str, write: Write, refused: Refused) -> None:
    *changes, expected = BROKEN[label]
    path = write(*changes)
    lines = refused(path)
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start.replace("@", str(path)))


# -- metrics of a set

VAL = "type: BicubicDataset\n    dataroot_gt: gt\n"


def test_metrics_of_a_validation_set(write: Write) -> None:
    own = VAL + "    metrics:\n      y: {type: calculate_psnr, crop_border: 2, test_y_channel: true}\n"
    opt = load_options(write((VAL, own)), is_train=True)
    assert opt["datasets"]["val"]["metrics"] == {
        "y": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True}
    }
    assert "metrics" not in opt["datasets"]["train"]
    from mambair.data import build_dataset

    assert len(build_dataset(opt["datasets"]["val"])) == 2


def test_faults_of_such_metrics(write: Write, refused: Refused) -> None:
    own = VAL + "    metrics:\n      y: {type: calculate_psnr, border: 2}\n      z: {type: calculate_pnsr}\n"
    lines = refused(write((VAL, own)))
    assert any("datasets.val.metrics.y.border: calculate_psnr has no argument 'border'" in line for line in lines)
    assert any("datasets.val.metrics.z.type: no metric named 'calculate_pnsr'" in line for line in lines)


# -- mixtures

MIXED = """\
type: MixedDataset
    weights: [0.75, 0.25]
    datasets:
      - type: BicubicDataset
        dataroot_gt: gt
        gt_size: 16
      - type: RealESRGANDataset
        dataroot_gt: [gt, lq]
        preset: photo
        gt_size: 16"""
GT_SIZE = "    gt_size: 16\n"


def test_a_mixture(write: Write, workspace: Path) -> None:
    opt = load_options(write((PAIRS + "\n" + GT_SIZE, MIXED + "\n")), is_train=True)
    first, second = opt["datasets"]["train"]["datasets"]
    assert first["dataroot_gt"] == str(workspace / "gt")
    assert second["dataroot_gt"] == [str(workspace / "gt"), str(workspace / "lq")]
    assert (second["jpeg_range"], second["scale"], second["phase"]) == ([40, 95], 4, "train")
    from mambair.data import build_dataset

    assert len(build_dataset(opt["datasets"]["train"])) == 16  # 4 images are a quarter


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dataroot_gt: gt", "dataroot_gt: nowhere", "@:11: datasets.train.datasets[0].dataroot_gt: "),
        ("preset: photo", "preset: foto", "@:15: datasets.train.datasets[1].preset: found 'foto'; "),
        ("preset: photo", "num_worker_per_gpu: 1", "@:15: datasets.train.datasets[1].num_worker_per_gpu: belongs to"),
        ("type: BicubicDataset", "type: Bicubic", "@:10: datasets.train.datasets[0].type: no data set named 'Bicubic'"),
        ("weights: [0.75, 0.25]", "weights: [1]", "@:8: datasets.train.weights: must be one number > 0 for each"),
        ("preset: photo", "degrade_on: device", "@:9: datasets.train.datasets: number 1: degrade_on: must be workers"),
        ("preset: photo", "color: gray", "@:15: datasets.train.datasets[1].color"),
    ],
)
def test_faults_of_a_mixture(write: Write, refused: Refused, old: str, new: str, expected: str) -> None:
    path = write(
        (PAIRS + "\n" + GT_SIZE, MIXED.replace(old, new) + "\n"), ("embed_dim: 8", "embed_dim: 8\n  in_chans: 3")
    )
    lines = refused(path)
    assert lines[0].startswith(expected.replace("@", str(path))), lines
