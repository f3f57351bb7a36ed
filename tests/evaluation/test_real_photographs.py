"""The suite without ground truth: what is measured, what stands in tables and in the report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mambair.commands import benchmark
from mambair.evaluation.candidates import InputCandidate
from mambair.evaluation.crops import as_data_uri, busiest_place, cut
from mambair.evaluation.evaluate import measure
from mambair.evaluation.results import Run, SetResult, metrics_for
from mambair.evaluation.suites import SUITES
from mambair.evaluation.tables import protocol
from mambair.evaluation.test_sets import open_set
from mambair.images.resize import imresize
from mambair.metrics import calculate_niqe

REAL = SUITES["real"]


def picture(seed: int, height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders of photographs: the suite's set, and one of the user's own."""
    for name, count in {"RealSRSet+5images": 3, "Holiday": 2}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            picture(index, 60, 100 + index).save(tmp_path / "photos" / name / f"im{index}.png")
    return tmp_path / "photos"


def arguments(photos: Path, output: Path, *more: str) -> list[str]:
    return ["--suite", "real", "--data", str(photos), "--output", str(output), "--quiet", "--device", "cpu", *more]


def test_the_command(photos: Path, tmp_path: Path, enlarging: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = ["--weights", f"net={enlarging}", "--sets", "realsrset", "holiday"]
    assert benchmark.main(arguments(photos, out, *more)) == 0
    shown = capsys.readouterr().out
    assert "Real photographs x2\nniqe: Y channel, crop border 0, parameters fitted by this project; on 8 bits" in shown
    assert "RealSRSet (3)" in shown and "Holiday (2)" in shown and "printed" not in shown
    (level,) = json.loads((out / "results.json").read_text(encoding="utf-8"))["levels"]
    assert level["scale"] == 2 and list(level["metrics"]) == ["niqe"]
    for found in level["sets"]:
        for index, image in enumerate(found["methods"]["input"]["images"]):
            enlarged = np.asarray(imresize(np.asarray(picture(index, 60, 100 + index)), 2))
            assert image["scores"] == {"niqe": calculate_niqe(enlarged[:, :, ::-1], 0)}
        assert found["methods"]["net"]["comparison"] is None
    assert benchmark.main(arguments(photos, out, *more)) == 0
    assert "0 images measured, 10 were there" in capsys.readouterr().out


def test_lower_is_better(photos: Path, tmp_path: Path, enlarging: Path) -> None:
    benchmark.main(arguments(photos, tmp_path / "out", "--weights", f"net={enlarging}"))
    text = (tmp_path / "out/results.md").read_text(encoding="utf-8")
    (found,) = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["levels"][0]["sets"]
    means = {name: method["mean"]["niqe"] for name, method in found["methods"].items()}
    best = min(means, key=means.__getitem__)
    assert f"**{means[best]:.4f}**" in text and text.count("**") == 2
    rows = list(csv.reader(io.StringIO((tmp_path / "out/results_per_set.csv").read_text(encoding="utf-8"))))
    assert "niqe" in rows[0] and "psnr" not in rows[0] and "ssim" not in rows[0]


def test_the_report_shows_the_same_place(photos: Path, tmp_path: Path) -> None:
    assert benchmark.main(arguments(photos, tmp_path / "out", "--levels", "2", "--crop", "16")) == 0
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "input, 2 times smaller" in report and ">ground truth<" not in report
    for index in range(3):
        small = np.asarray(picture(index, 60, 100 + index))
        enlarged = np.asarray(imresize(small, 2))
        place = busiest_place(enlarged, 16)
        assert as_data_uri(cut(enlarged, place)) in report and as_data_uri(cut(small, place, 2)) in report


def test_results_of_others(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        folder = tmp_path / "theirs/RealSRSet"
        folder.mkdir(parents=True, exist_ok=True)
        picture(index, 120, 200 + 2 * index).save(folder / f"im{index}.png")
    more = ["--levels", "2", "--no-html", "--results", f"theirs={tmp_path / 'theirs'}"]
    assert benchmark.main(arguments(photos, tmp_path / "out", *more)) == 0
    capsys.readouterr()
    picture(0, 60, 100).save(tmp_path / "theirs/RealSRSet/im0.png")
    assert benchmark.main(arguments(photos, tmp_path / "out2", *more)) == 1
    assert "im0.png: 200 x 120 pixels are expected, it has 100 x 60" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "say the scale to measure at: --levels N"),
        (["--levels", "2", "--sets", "x"], "--sets x: real has RealSRSet"),
        (["--levels", "9"], "--levels 9: the scale must be from 1 to 8"),
        (["--levels", "2", "--reference", "HAT"], "--reference HAT: nothing was printed for real"),
    ],
    ids=["level", "set", "scale", "reference"],
)
def test_usage(photos: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments(photos, tmp_path / "out", *more))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_small_images_fail_alone(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(9, 40, 40).save(photos / "RealSRSet+5images/im9.png")
    assert benchmark.main(arguments(photos, tmp_path / "out", "--levels", "2", "--no-html")) == 1
    assert "niqe failed on 1 of 4 images; im9: img: must keep at least 96x96 pixels" in capsys.readouterr().err


def test_networks_of_any_scale(weights: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    for index in range(3):
        picture(index, 100, 200).save(photos / f"Holiday/im{index}.png")
    more = ["--sets", "Holiday", "--no-html", "--weights", f"clean={weights('clean', upsampler='')}"]
    assert benchmark.main(arguments(photos, tmp_path / "out", *more)) == 0
    assert json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["levels"][0]["scale"] == 1


def test_sets_with_and_without_ground_truth_in_one_table(photos: Path, data: Path) -> None:
    """Each set has the metrics that it can have, and the protocol says which."""
    asked = {"psnr": {"type": "calculate_psnr", "crop_border": 0}, **REAL.metrics(2)}
    opened = [open_set(photos, "RealSRSet", REAL, 2), open_set(data, "Set5", SUITES["classic-sr"], 2)]
    names = ("RealSRSet", "Set5")
    candidate = InputCandidate("bicubic", is_enlarged=True)
    run = Run("mixed", [candidate], photos)
    for name, each in zip(names, opened, strict=True):
        result = SetResult(name, each.dataset, metrics_for(each.dataset, asked), 2)
        run.sets.append(measure(result, [candidate]))
    assert [list(result.metrics) for result in run.sets] == [["niqe"], ["psnr", "niqe"]]
    assert list(run.sets[0].mean("bicubic")) == ["niqe"]
    told = protocol(run, 2)
    assert told.startswith("RealSRSet: niqe: ") and " | Set5: psnr: all channels (RGB), crop border 0 / niqe: " in told
