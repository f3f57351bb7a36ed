"""The tables: every form holds every number, whatever the numbers and the file names are."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from mambair.evaluation.set_tables import FILES, Report, SetResult, describe_metric, write_report

from mambair.evaluation import set_tables
from mambair.evaluation.evaluate import Evaluation

PSNR = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True, "better": "higher"}
SSIM = {"type": "calculate_ssim", "crop_border": 0}
ODD_NAMES = ["a|b", "line\nbreak", 'comma, "quote"', "Überfluß 画", "back\\slash"]


@pytest.fixture
def report() -> Report:
    """Two sets, of which only the second has SSIM; numbers that JSON does not know; awkward names."""
    first = [{"name": name, "psnr": 30.0 + index / 3} for index, name in enumerate(ODD_NAMES)]
    second = [{"name": "same", "psnr": math.inf, "ssim": 1.0}, {"name": "broken", "psnr": 20.0, "ssim": math.nan}]
    return Report(
        "a report",
        [
            SetResult(Evaluation("One", {"psnr": PSNR}, first), {"noise": "sigma 25, seed 0"}),
            SetResult(Evaluation("Two", {"psnr": PSNR, "ssim": SSIM}, second)),
        ],
        {"weights": "net_g.pth"},
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PSNR, "Y channel, crop border 4"),
        (SSIM, "all channels (RGB), crop border 0, 11x11 Gaussian window, sigma 1.5, valid region"),
        ({"type": "basicsr/calculate_niqe", "crop_border": 2, "convert_to": "y"}, "crop border 2, convert_to y"),
    ],
)
def test_metrics_in_words(options: dict[str, object], words: str) -> None:
    assert describe_metric(options).endswith(words)


def test_text_is_aligned(report: Report) -> None:
    text = set_tables.as_text(report)
    tables = [part.splitlines() for part in text.split("\n\n")]
    table = tables[0][1:]
    assert len({len(line) for line in table if line.isascii()}) == 1
    assert [line.split()[-1] for line in table[2:4]] == ["30.0000", "30.3333"]
    assert "line\\nbreak" in text, "a line break in a name breaks no table"
    assert "Two            2      inf   nan" in text
    assert "One            5  30.6667     -" in text
    assert "One: noise sigma 25, seed 0" in text
    assert "weights: net_g.pth" in text


def test_markdown_tables_keep_their_columns(report: Report) -> None:
    lines = set_tables.as_markdown(report).splitlines()
    rows = [line.replace("\\\\", "").replace("\\|", "") for line in lines if line.startswith("|")]
    assert {row.count("|") for row in rows} == {3, 4, 5}, "name and psnr; name, psnr, ssim; the same with images"
    assert "| a\\|b | 30.0000 |" in lines


def test_json_is_strict_and_complete(report: Report) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(set_tables.as_json(report), parse_constant=refuse)
    assert [image["name"] for image in content["sets"][0]["per_image"]] == ODD_NAMES
    assert content["sets"][0]["per_image"][1]["psnr"] == 30.0 + 1 / 3, "every digit is kept"
    assert content["sets"][1]["mean"] == {"psnr": "inf", "ssim": "nan"}
    assert content["metrics"]["psnr"]["means"] == "Y channel, crop border 4"
    assert content["sets"][0]["conditions"] == {"noise": "sigma 25, seed 0"}


def test_csv_can_be_read_back(report: Report) -> None:
    images = list(csv.DictReader(io.StringIO(set_tables.images_as_csv(report))))
    assert [row["image"] for row in images[:5]] == [name.replace("\n", "\\n") for name in ODD_NAMES]
    assert float(images[1]["psnr"]) == 30.0 + 1 / 3
    assert images[0]["ssim"] == ""
    sets = list(csv.DictReader(io.StringIO(set_tables.sets_as_csv(report))))
    assert [(row["dataset"], row["metric"]) for row in sets] == [("One", "psnr"), ("Two", "psnr"), ("Two", "ssim")]
    assert sets[0]["protocol"] == "Y channel, crop border 4; noise sigma 25, seed 0"


def test_files_are_replaced_as_a_whole(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "new"
    assert write_report(report, folder) == [folder / name for name in FILES]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == set(FILES)
    broken = Report("a report", [SetResult(Evaluation("One", {"psnr": PSNR}, [{"name": "x"}]))])
    with pytest.raises(KeyError):
        write_report(broken, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_without_results_or_metrics() -> None:
    assert set_tables.as_text(Report("empty", [])).startswith("data set  images")
    saved_only = Report("saved", [SetResult(Evaluation("One", {}, [{"name": "a"}]))])
    assert "One            1" in set_tables.as_text(saved_only)
    assert "| a |" in set_tables.as_markdown(saved_only)
