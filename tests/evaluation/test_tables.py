"""Tables: every figure with its protocol, printed ones beside ours only where they may be compared."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mambair.evaluation import tables
from mambair.evaluation.candidates import Candidate
from mambair.evaluation.comparison import check_reference, compare, printed_rows, why_not_printed
from mambair.evaluation.results import ImageResult, Run, SetResult
from mambair.evaluation.suites import SUITES

SUITE = SUITES["light-sr"]


class Named(Candidate):
    """Only a row of a table."""

    def __init__(self, name: str, parameters: int | None = None, published_network: str | None = None) -> None:
        self.name, self.parameters, self.published_network = name, parameters, published_network


CANDIDATES = [Named("bicubic"), Named("ours_x4 & co", 144920), Named("light", 905016, "MambaIR-light")]


def measured(name: str, count: int, published: int, level: int = 2, suite: str = "light-sr") -> SetResult:
    """``count`` images; the second candidate is 1 dB better than the first, and so on."""
    paths = {index: Path(f"im{index}.png") for index in range(count)}
    images: Any = list(paths)
    result = SetResult(name, images, SUITES[suite].metrics(level), level, "reductions from x", published, paths)
    result.names = {index: path.stem for index, path in paths.items()}
    for n, candidate in enumerate(CANDIDATES):
        result.images[candidate.name] = {
            i: ImageResult(
                f"im{i}", {"psnr": 30 + n + i / 8, "ssim": 0.9 + n / 100}, 0.5 * n, "a machine", f"p/{i}.png"
            )
            for i in range(count)
        }
    return result


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Set5 whole; Set14 with one image of 14; Urban100 missing; one failure."""
    sets = [measured("Set5", 5, 5), measured("Set14", 1, 14)]
    sets[0].failed = ["Set5, a\nb, net: out of memory"]
    missing = {"Urban100": "Urban100: no folder Urban100 in data"}
    return Run(SUITE.title, CANDIDATES, tmp_path, {"networks": "whole images"}, SUITE, sets=sets, missing=missing)


def test_the_table_of_means(run: Run) -> None:
    rows = tables.level_rows(run, 2)
    assert rows[0] == ["method", "parameters", "Set5 (5)", "Set14 (1)"]
    assert rows[1] == ["bicubic", "-", "30.25 / 0.9000", "30.00 / 0.9000"]
    assert rows[2] == ["ours_x4 & co", "144,920", "31.25 / 0.9100", "31.00 / 0.9100"]
    printed = {row[0]: row[1:] for row in rows[4:]}
    assert printed["MambaIR-light (printed)"] == ["905,016", "38.13 / 0.9610", "-"], "Set14 is not the published set"
    assert tables.level_rows(run, 2, decorate=True)[3][2] == "**32.25 / 0.9200**"


def test_differences_to_the_printed_figures(run: Run) -> None:
    rows = tables.difference_rows(run, 2)[1:]
    assert [row[:2] for row in rows] == [["ours_x4 & co", "Set5"], ["light", "Set5"]]
    assert rows[0] == [
        *("ours_x4 & co", "Set5", "31.25", "38.13", "-6.88", "0.9100", "0.9610", "-0.0510"),
        "MambaIR-light, another network",
    ]
    assert rows[1][-1] == "MambaIR-light, the same network"


def test_another_reference(run: Run) -> None:
    run.reference = "MambaIRv2-light"
    check_reference(run, [2])
    rows = tables.difference_rows(run, 2)[1:]
    assert rows[0][3] == "38.26" and rows[0][-1] == "MambaIRv2-light, another network"
    assert rows[1][-1] == "MambaIR-light, the same network", "a printed network is compared with itself"
    run.reference = "SwinIR"
    with pytest.raises(ValueError, match="--reference SwinIR: printed for light-sr are MambaIR-light, "):
        check_reference(run, [2])


OTHER_PROTOCOLS: dict[str, dict[str, Any]] = {
    "crop border": {"crop_border": 0},
    "channels": {"test_y_channel": False},
    "metric": {"type": "basicsr/calculate_psnr"},
    "further option": {"data_range": 255.0},
}


@pytest.mark.parametrize("change", OTHER_PROTOCOLS.values(), ids=OTHER_PROTOCOLS.keys())
def test_figures_of_another_protocol_do_not_stand_beside(run: Run, change: dict[str, Any]) -> None:
    result = run.sets[0]
    assert printed_rows(run, result)
    metrics = {name: {**options, "better": "higher"} for name, options in SUITE.metrics(2).items()}
    assert printed_rows(replace(run), replace(result, metrics=metrics)), "which way is better is no protocol"
    metrics["psnr"] |= change
    run.sets = [replace(result, metrics=metrics)]
    assert printed_rows(run, run.sets[0]) == [] and compare(run, run.sets[0], CANDIDATES[2]) is None
    assert not [row for row in tables.level_rows(run, 2) if "printed" in row[0]]
    assert ",printed," not in tables.sets_as_csv(run)
    assert "Set5 x2: no printed figures beside it: measured by another protocol" in tables.as_text(run)


@pytest.mark.parametrize("count", [4, 6])
def test_figures_of_the_whole_set_do_not_stand_beside_others(run: Run, count: int) -> None:
    run.sets = [measured("Set5", count, 5)]
    assert printed_rows(run, run.sets[0]) == [] and compare(run, run.sets[0], CANDIDATES[2]) is None
    assert why_not_printed(run, run.sets[0]) == f"{count} images of the 5 of the published set"


def test_an_image_that_failed_for_one_candidate_makes_the_column_incomplete(run: Run) -> None:
    del run.sets[0].images["light"][4]
    assert printed_rows(run, run.sets[0]) == []
    assert "Set5 x2: no printed figures beside it: 4 images of the 5 of the published set" in tables.as_text(run)
    assert tables.level_rows(run, 2, decorate=True)[2][2].startswith("**"), "the best is one of the whole set"


@pytest.mark.parametrize(
    ("suite", "self_ensemble", "names"),
    [
        ("classic-sr", False, ["MambaIR", "MambaIRv2-S", "MambaIRv2-B", "MambaIRv2-L"]),
        ("classic-sr", True, ["MambaIR+"]),
        ("light-sr", True, []),
    ],
)
def test_self_ensembles_stand_beside_their_like(run: Run, suite: str, self_ensemble: bool, names: list[str]) -> None:
    run.suite, run.self_ensemble = SUITES[suite], self_ensemble
    assert [row.name for row in printed_rows(run, run.sets[0])] == names
    found = compare(run, run.sets[0], Named("light", 1, "MambaIR-classic"))
    assert (found and (found.reference, found.relation)) == ((names[0], "the same network") if names else None)
    assert ("nothing was published with self-ensemble" in tables.as_text(run)) == (not names)


def test_runs_of_option_files_have_no_printed_figures(run: Run) -> None:
    run.suite = None
    assert printed_rows(run, run.sets[0]) == [] and why_not_printed(run, run.sets[0]) == ""
    assert tables.level_rows(run, 2)[-1][0] == "light"


def test_text_says_everything(run: Run) -> None:
    text = tables.as_text(run)
    window = "11x11 Gaussian window, sigma 1.5, valid region"
    assert f"psnr: Y channel, crop border 2 / ssim: Y channel, crop border 2, {window}; on 8 bits" in text
    assert "networks: whole images" in text
    assert "Set5 x2: 5 images, reductions from x" in text
    assert "missing: Urban100: no folder Urban100 in data" in text
    assert "failed: Set5, a\\nb, net: out of memory" in text
    assert "measured on a machine" in text
    assert "im0" not in text
    assert "im0    30.0000 / 0.9000" in tables.as_text(run, images=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}, "Y channel, crop border 4"),
        ({"type": "calculate_psnr"}, "all channels (RGB), crop border 0"),
        (
            {"type": "basicsr/calculate_ssim", "crop_border": 2, "better": "higher"},
            "all channels (RGB), crop border 2, 11x11 Gaussian window, sigma 1.5, valid region",
        ),
        ({"type": "calculate_niqe", "crop_border": 4}, "Y channel, crop border 4, parameters fitted by this project"),
        ({"type": "basicsr/calculate_niqe", "convert_to": "gray"}, "grey, crop border 0"),
        ({"type": "other", "window": 7}, "RGB), crop border 0, window 7"),
    ],
)
def test_metrics_in_words(options: dict[str, Any], words: str) -> None:
    assert tables.describe_metric(options).endswith(words)


def test_a_metric_that_is_missing_is_a_dash_and_lower_may_be_better(run: Run) -> None:
    result = run.sets[0]
    metrics = {"lpips": {"type": "lpips", "better": "lower"}, "psnr": SUITE.metrics(2)["psnr"]}
    for n, images in enumerate(result.images.values()):
        scores = {"psnr": 30.0} if n == 0 else {"lpips": 0.1 * n, "psnr": 30.0}
        images.update({index: replace(image, scores=scores) for index, image in images.items()})
    run.sets = [replace(result, metrics=metrics)]
    rows = tables.level_rows(run, 2, decorate=True)
    assert [row[2] for row in rows[1:]] == ["- / 30.00", "**0.1000 / 30.00**", "0.2000 / 30.00"]
    assert json.loads(tables.as_json(run)) and ",lpips,psnr," in tables.sets_as_csv(run)


def test_markdown_tables_keep_their_columns(run: Run) -> None:
    text = tables.as_markdown(run)
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "### Set5, Lightweight super-resolution x2: images" in text
    assert "| mean | 30.2500 / 0.9000 | 31.2500 / 0.9100 | 32.2500 / 0.9200 |" in text


def test_latex_is_balanced_and_escaped(run: Run) -> None:
    text = tables.as_latex(run)
    assert r"ours\_x4 \& co & 144,920 & 31.25 / 0.9100" in text
    assert r"\textbf{32.25 / 0.9200}" in text
    assert r"\begin{tabular}{lrrr}" in text
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {3}


def test_csv_has_the_protocol_beside_each_number(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.sets_as_csv(run))))
    ours = next(row for row in rows if row["method"] == "light" and row["set"] == "Set5")
    assert (ours["source"], ours["images"], ours["parameters"], ours["scale"]) == ("measured", "5", "905016", "2")
    assert math.isclose(float(ours["psnr_difference"]), 32.25 - 38.13)
    assert "crop border 2" in ours["protocol"] and "whole images" in ours["protocol"]
    printed = next(row for row in rows if row["method"] == "MambaIRv2-light")
    assert (printed["source"], printed["psnr"], printed["psnr_difference"]) == ("printed", "38.26", "")
    assert not [row for row in rows if row["source"] == "printed" and row["set"] == "Set14"]
    images = list(csv.DictReader(io.StringIO(tables.images_as_csv(run))))
    assert len(images) == 18 and all("crop border 2" in row["protocol"] for row in images)


def test_json_is_strict_and_complete(run: Run) -> None:
    first = run.sets[0].images["bicubic"]
    first[0] = replace(first[0], scores={"psnr": math.inf, "ssim": 1.0})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(tables.as_json(run), parse_constant=refuse)
    (level,) = content["levels"]
    assert level["scale"] == 2 and level["metrics"]["psnr"]["crop_border"] == 2
    set5, set14 = level["sets"]
    assert set5["methods"]["bicubic"]["mean"]["psnr"] == "inf"
    assert set5["methods"]["light"]["comparison"]["is_same"] is True
    assert (set14["images"], set14["published_images"]) == (1, 14)
    assert len(set5["methods"]["light"]["images"]) == 5
    assert content["missing"] and content["failed"]


@pytest.mark.parametrize("stem", ["metrics", "results"])
def test_files(run: Run, tmp_path: Path, stem: str) -> None:
    run.folder = tmp_path / "new"
    written = tables.write_tables(run, stem)
    ends = (".md", ".json", ".tex", "_per_set.csv", "_per_image.csv")
    assert (
        {path.name for path in written} == {path.name for path in run.folder.iterdir()} == {stem + end for end in ends}
    )


def test_nothing_measured_is_no_error(tmp_path: Path) -> None:
    empty = Run(SUITE.title, CANDIDATES, tmp_path, suite=SUITE)
    for render in tables.WRITERS.values():
        assert render(empty)
    assert tables.as_text(empty).strip() == ""
