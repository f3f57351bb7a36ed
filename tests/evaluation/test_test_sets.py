"""Test sets are found under their usual names and paired; their inputs are the published ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.data import DatasetError
from mambair.evaluation.candidates import InputCandidate
from mambair.evaluation.evaluate import measure
from mambair.evaluation.results import SetResult
from mambair.evaluation.suites import SUITES, TEST_SETS
from mambair.evaluation.test_sets import find_folder, open_set
from mambair.system.errors import RequestError

SR, DN, CAR = SUITES["classic-sr"], SUITES["color-dn"], SUITES["gray-car"]


def test_suites_name_known_sets() -> None:
    assert {name for suite in SUITES.values() for name in suite.sets} == set(TEST_SETS)


def test_metrics_are_those_of_the_papers() -> None:
    assert SR.metrics(3)["psnr"] == {"type": "calculate_psnr", "crop_border": 3, "test_y_channel": True}
    assert DN.metrics(25)["ssim"] == {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False}
    assert CAR.metrics(10)["psnr"] == {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True}


@pytest.mark.parametrize("name", ["B100", "bsd100", "BSDS100"])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert find_folder(tmp_path, "B100").name.lower() == name.lower()


def test_a_missing_set_names_the_folders(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"B100: no folder B100 or BSD100 or BSDS100 in "):
        open_set(tmp_path, "B100", SR, 2)
    (tmp_path / "B100").mkdir()
    with pytest.raises(RequestError, match=r"B100: .* holds no images, nor does one of its folders HR, HQ, GT"):
        open_set(tmp_path, "B100", SR, 2)


def test_reductions_on_disk_are_used_and_named(data: Path) -> None:
    found = open_set(data, "Set5", SR, 2)
    assert found.inputs == str(Path("reductions from set5/LR_bicubic/X2"))
    assert [Path(found.dataset[index]["gt_path"]).stem for index in range(5)] == [f"im{index}" for index in range(5)]
    item = found.dataset[0]
    assert (item["lq"].shape, item["gt"].shape) == ((3, 12, 12), (3, 24, 24))
    made = open_set(data, "Set5", SR, 3)
    assert made.inputs == "bicubic reduction made here, as MATLAB makes it"
    assert made.dataset[0]["lq"].shape == (3, 8, 8)


@pytest.mark.parametrize("template", ["{}", "{}x2", "{}_LRBI_x2"])
def test_names_of_reductions(data: Path, template: str) -> None:
    folder = data / "set5/LR_bicubic/X2"
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{template.format(path.stem[:-2])}.png")
    assert open_set(data, "Set5", SR, 2).dataset[1]["lq"].shape == (3, 12, 12)


def test_reductions_that_do_not_pair_are_a_fault_and_not_passed_over(data: Path) -> None:
    (data / "set5/LR_bicubic/X2/im0x2.png").unlink()
    with pytest.raises(DatasetError, match=r"has no partner of im0.png"):
        open_set(data, "Set5", SR, 2)


def test_odd_sizes_are_cut_to_the_scale(data: Path) -> None:
    found = open_set(data, "Set14", SR, 4)
    assert [tuple(found.dataset[0][key].shape) for key in ("lq", "gt")] == [(3, 5, 5), (3, 20, 20)]


def test_noise_is_the_published_one(data: Path) -> None:
    item = open_set(data, "McMaster", DN, 25).dataset[0]
    lq, gt = item["lq"], item["gt"]
    noise = np.random.RandomState(0).normal(0, 25 / 255, (24, 24, 3))[:, :, ::-1].transpose(2, 0, 1)
    assert np.abs(lq.numpy() - (gt.numpy() + noise)).max() < 1e-6


def test_jpeg_of_grey_and_of_colour(data: Path) -> None:
    item = open_set(data, "Classic5", CAR, 10).dataset[0]
    lq, gt = item["lq"], item["gt"]
    assert lq.shape == gt.shape == (1, 24, 24)
    original = np.asarray(Image.open(data / "classic5/im0.bmp"))
    assert np.array_equal((gt[0].numpy() * 255).round(), original), "grey stays as it is"
    assert not np.array_equal(lq, gt)
    shutil.copytree(data / "set5/HR", data / "LIVE1")
    luma = open_set(data, "LIVE1", CAR, 10).dataset[0]["gt"]
    red, green, blue = np.moveaxis(np.asarray(Image.open(data / "LIVE1/im0.png"), float), 2, 0)
    expected = np.floor((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16.5)
    assert np.array_equal((luma[0].numpy() * 255).round(), expected), "colour becomes its luma of 16 to 235"


# PSNR and SSIM of the unrestored input as published: bicubic (SRCNN and after, whose Set5 is cut to the scale),
# JPEG (ARCNN and after). Within half of the last printed digit, and 0.01 dB for Set5's edges
PUBLISHED_INPUTS = [
    ("classic-sr", "Set5", 2, 33.66, 0.9299, 0.02, 5e-4),
    ("classic-sr", "Set5", 3, 30.39, 0.8682, 0.02, 1e-3),
    ("classic-sr", "Set5", 4, 28.42, 0.8104, 0.02, 1e-3),
    ("gray-car", "Classic5", 10, 27.82, 0.7595, 0.0051, 6e-5),
    ("gray-car", "Classic5", 40, 32.43, 0.8849, 0.0051, 6e-5),
]


@pytest.mark.parametrize(
    ("suite", "name", "level", "psnr", "ssim", "psnr_tolerance", "ssim_tolerance"),
    PUBLISHED_INPUTS,
    ids=[f"{row[1]}-{row[2]}" for row in PUBLISHED_INPUTS],
)
def test_unrestored_inputs_score_as_published(
    development_data: Path,
    suite: str,
    name: str,
    level: int,
    psnr: float,
    ssim: float,
    psnr_tolerance: float,
    ssim_tolerance: float,
) -> None:
    opened = open_set(development_data / "data/test", name, SUITES[suite], level)
    candidate = InputCandidate("input", is_enlarged=SUITES[suite].task == "sr")
    result = SetResult(name, opened.dataset, SUITES[suite].metrics(level), level)
    mean = measure(result, [candidate]).mean("input")
    assert not result.failed
    assert abs(mean["psnr"] - psnr) < psnr_tolerance
    assert abs(mean["ssim"] - ssim) < ssim_tolerance
