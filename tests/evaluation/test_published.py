"""The printed numbers: names fit together, and look-ups say what there is."""

from __future__ import annotations

import json

import pytest

from mambair.archs.published import networks
from mambair.evaluation import published
from mambair.evaluation.suites import SUITES, TEST_SETS


@pytest.mark.parametrize("name", SUITES)
def test_results_belong_to_suites_and_networks(name: str) -> None:
    suite = SUITES[name]
    for level in suite.printed_levels:
        rows = published.methods(name, level)
        assert rows
        for row in rows:
            assert row.about
            assert set(row.scores) == set(suite.sets)
            if row.network is not None:
                assert suite.upscale(level) in networks()[row.network].parameters
            for score in row.scores.values():
                assert 20 < score.psnr < 45 and (score.ssim is None or 0.7 < score.ssim < 1)


def test_nothing_is_printed_for_other_levels() -> None:
    assert published.methods("classic-sr", 8) == []
    assert published.methods("nothing", 2) == []


def test_results_name_no_other_suite_or_set() -> None:
    content = json.loads((published.FOLDER / "results.json").read_text(encoding="utf-8"))
    assert set(content["suites"]) == {name for name, suite in SUITES.items() if suite.printed_levels}
    named = {
        name for suite in content["suites"].values() for rows in suite.values() for row in rows.values() for name in row
    }
    assert named <= set(TEST_SETS)


def test_higher_is_better_than_the_scale_above() -> None:
    """A digit that slipped would break it: every set is easier at x2 than at x3 than at x4."""
    for suite in ("classic-sr", "light-sr"):
        for row in published.methods(suite, 4):
            found = [{r.name: r for r in published.methods(suite, level)}.get(row.name) for level in (2, 3)]
            for name, score in row.scores.items():
                values = [other.scores[name].psnr for other in found if other] + [score.psnr]
                assert values == sorted(values, reverse=True)
