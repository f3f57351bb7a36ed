"""Tables: every number with its protocol, printed ones beside ours only where they may be compared."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from mambair.evaluation.summary import Summary

from mambair.evaluation import suite_tables
from mambair.evaluation.candidates import Candidate
from mambair.evaluation.score_cache import Measurement
from mambair.evaluation.suite_run import Plan, Results
from mambair.evaluation.suites import SUITES
from mambair.evaluation.test_sets import open_set

SUITE = SUITES["light-sr"]


class Named:
    """A method that is only a row of a table."""

    identity = ""
    levels: tuple[int, ...] | None = None

    def __init__(self, name: str, parameters: int | None = None, published_network: str | None = None) -> None:
        self.name, self.parameters, self.published_network = name, parameters, published_network

    def __call__(self, sample: object):
        raise AssertionError("nothing is measured here")


METHODS: list[Candidate] = [
    Named("bicubic"),
    Named("ours_x4 & co", 144920),
    Named("light", 905016, "MambaIR-light"),
]


def measured(dataset: str, count: int, level: int = 2) -> list[Measurement]:
    return [
        Measurement(m.name, dataset, f"im{i}", level, 30 + n + i / 8, 0.9 + n / 100, 0.5 * n, f"p/{i}.png", "a machine")
        for n, m in enumerate(METHODS)
        for i in range(count)
    ]


@pytest.fixture
def results(data: Path, tmp_path: Path) -> Results:
    """Set5 whole; Set14 with one image of 14; Urban100 missing; one failure."""
    plan = Plan(SUITE, data, ("Set5", "Set14", "Urban100"), [2], METHODS, tmp_path)
    found = Results(plan, [*measured("Set5", 5), *measured("Set14", 1)])
    found.image_sets = {(2, name): open_set(data, name, SUITE, 2) for name in ("Set5", "Set14")}
    found.missing = {"Urban100": "Urban100: no folder Urban100 in data"}
    found.failed = ["Set5, a\nb, net: out of memory"]
    return found


def test_the_table_of_means(results: Results) -> None:
    rows = suite_tables.level_rows(Summary(results), 2)
    assert rows[0] == ["method", "parameters", "Set5 (5)", "Set14 (1)"]
    assert rows[1] == ["bicubic", "-", "30.25 / 0.9000", "30.00 / 0.9000"]
    assert rows[2] == ["ours_x4 & co", "144,920", "31.25 / 0.9100", "31.00 / 0.9100"]
    printed = {row[0]: row[1:] for row in rows[4:]}
    assert printed["MambaIR-light (printed)"] == ["905,016", "38.13 / 0.9610", "33.95 / 0.9208"]
    assert suite_tables.level_rows(Summary(results), 2, decorate=True)[3][2] == "**32.25 / 0.9200**"


def test_differences_to_the_printed_numbers(results: Results) -> None:
    rows = suite_tables.difference_rows(Summary(results), 2)[1:]
    assert rows[0] == [
        *("ours_x4 & co", "Set5", "31.25", "38.13", "-6.88", "0.9100", "0.9610", "-0.0510"),
        "MambaIR-light, another network",
    ]
    assert rows[1][3:5] == ["33.95", "-"] and rows[1][-1].endswith("1 images, not the published set")
    assert rows[2][-1] == "MambaIR-light, the same network"


def test_another_reference(results: Results) -> None:
    rows = suite_tables.difference_rows(Summary(results, "MambaIRv2-light"), 2)[1:]
    assert rows[0][3] == "38.26" and rows[0][-1] == "MambaIRv2-light, another network"
    assert rows[2][-1] == "MambaIR-light, the same network", "a printed network is compared with itself"
    with pytest.raises(ValueError, match="--reference SwinIR: printed for light-sr are MambaIR-light, "):
        Summary(results, "SwinIR")


@pytest.mark.parametrize(
    ("suite", "self_ensemble", "reference", "relation"),
    [
        ("classic-sr", False, "MambaIR", "the same network"),
        ("classic-sr", True, "MambaIR+", "the same network"),
        ("light-sr", True, "MambaIR-light", "the same network without self-ensemble"),
    ],
)
def test_self_ensembles_are_compared_with_their_like(
    results: Results, suite: str, self_ensemble: bool, reference: str, relation: str
) -> None:
    network = "MambaIR" if suite == "classic-sr" else "MambaIR-light"
    method = Named("light", 1, network)
    results.plan = replace(results.plan, suite=SUITES[suite], methods=[method], self_ensemble=self_ensemble)
    found = Summary(results).comparison(2, "Set5", method)
    assert found is not None and (found.reference, found.relation) == (reference, relation)


def test_an_image_that_failed_makes_a_set_incomplete(results: Results) -> None:
    results.measurements = [m for m in results.measurements if (m.method, m.image) != ("light", "im4")]
    found = Summary(results).comparison(2, "Set5", METHODS[2])
    assert found is not None and found.psnr is None and found.remark == "4 images, not the published set"


def test_text_says_everything(results: Results) -> None:
    text = suite_tables.as_text(Summary(results))
    assert "PSNR in dB / SSIM on the Y channel as 8 bits, crop border 2, SSIM: 11x11 Gaussian window" in text
    assert "whole images" in text
    assert "Set5 x2: 5 images, reductions from" in text
    assert "missing: Urban100: no folder Urban100 in data" in text
    assert "failed: Set5, a\\nb, net: out of memory" in text
    assert "measured on a machine" in text


def test_markdown_tables_keep_their_columns(results: Results) -> None:
    text = suite_tables.as_markdown(Summary(results))
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "### Set5, Lightweight super-resolution x2: images" in text
    assert "| mean | 30.25 / 0.9000 | 31.25 / 0.9100 | 32.25 / 0.9200 |" in text


def test_latex_is_balanced_and_escaped(results: Results) -> None:
    text = suite_tables.as_latex(Summary(results))
    assert r"ours\_x4 \& co & 144,920 & 31.25 / 0.9100" in text
    assert r"\textbf{32.25 / 0.9200}" in text
    assert r"\begin{tabular}{lrrr}" in text
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {3}


def test_csv_has_the_protocol_beside_each_number(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(suite_tables.sets_as_csv(Summary(results)))))
    ours = next(row for row in rows if row["method"] == "light" and row["set"] == "Set5")
    assert (ours["source"], ours["images"], ours["parameters"], ours["scale"]) == ("measured", "5", "905016", "2")
    assert math.isclose(float(ours["psnr_difference"]), 32.25 - 38.13)
    assert "crop border 2" in ours["protocol"]
    printed = next(row for row in rows if row["method"] == "MambaIRv2-light")
    assert (printed["source"], printed["psnr"], printed["psnr_difference"]) == ("printed", "38.26", "")
    images = list(csv.DictReader(io.StringIO(suite_tables.images_as_csv(Summary(results)))))
    assert len(images) == 18 and all("crop border 2" in row["protocol"] for row in images)


def test_json_is_strict_and_complete(results: Results) -> None:
    results.measurements[0] = replace(results.measurements[0], psnr=math.inf)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(suite_tables.as_json(Summary(results)), parse_constant=refuse)
    (level,) = content["levels"]
    assert level["scale"] == 2 and level["metrics"]["psnr"]["crop_border"] == 2
    first, second = level["sets"]
    assert first["methods"]["bicubic"]["mean"]["psnr"] == "inf"
    assert first["methods"]["light"]["comparison"]["is_same"] is True
    assert second["is_complete"] is False and len(first["methods"]["light"]["images"]) == 5
    assert content["missing"] and content["failed"]


def test_files(results: Results, tmp_path: Path) -> None:
    written = suite_tables.write_tables(Summary(results), tmp_path / "new")
    assert (
        {path.name for path in written}
        == set(suite_tables.FILES)
        == {path.name for path in (tmp_path / "new").iterdir()}
    )


def test_nothing_measured_is_no_error(data: Path, tmp_path: Path) -> None:
    empty = Summary(Results(Plan(SUITE, data, ("Set5",), [2], METHODS, tmp_path)))
    for render in suite_tables.FILES.values():
        assert render(empty)
    assert suite_tables.as_text(empty).strip() == ""
