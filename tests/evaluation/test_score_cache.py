"""The journal: what is in it is found again, whatever a crash left of its last line."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mambair.evaluation.score_cache import Journal, Measurement, ScoreJournal, key_of

ONE = Measurement("net", "Set5", "über | 画\n", 4, 30.125, 0.9, 0.5, "pictures/a.png", "machine")


def test_numbers_and_names_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    odd = replace(ONE, psnr=math.inf, ssim=math.nan)
    journal.add("a", ONE)
    journal.add("b", odd)
    again = Journal(journal.path)
    assert again.find("a") == ONE
    found = again.find("b")
    assert found is not None and found.psnr == math.inf and math.isnan(found.ssim)
    assert again.find("c") is None and len(again) == 2


@pytest.mark.parametrize("cut", [1, 10, 80])
def test_a_line_cut_off_by_a_crash_costs_itself_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add("a", ONE)
    journal.add("b", ONE)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert again.find("a") == ONE and (again.find("b") is None) == (cut > 1)
    again.add("c", ONE)
    assert Journal(path).find("c") == ONE and Journal(path).find("a") == ONE


@pytest.mark.parametrize("line", ["", "{", "[1]", "null", '{"key": "a"}', '{"key": "a", "version": 1, "x": 2}', "\0"])
def test_lines_of_another_kind_are_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    assert len(Journal(path)) == 0


def test_lines_of_another_version_are_not_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("a", ONE)
    journal.path.write_text(journal.path.read_text("utf-8").replace('"version": 1', '"version": 0'), "utf-8")
    assert Journal(journal.path).find("a") is None


def test_keys_tell_everything_apart() -> None:
    parts = [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a1",)]
    assert len({key_of(each) for each in parts}) == len(parts)
    assert key_of([{"x": 1, "y": 2}]) == key_of([{"y": 2, "x": 1}])


def test_scores_are_known_by_pixels_and_settings(tmp_path: Path) -> None:
    lq, gt = torch.rand(3, 4, 5), torch.rand(3, 8, 10)
    path = tmp_path / "journal.jsonl"
    ScoreJournal(path, ["weights", 0]).add(lq, gt, {"psnr": math.inf, "ssim": math.nan})
    found = ScoreJournal(path, ["weights", 0]).find(lq, gt)
    assert found is not None and found["psnr"] == math.inf and math.isnan(found["ssim"])
    again = ScoreJournal(path, ["weights", 0])
    assert again.find(lq.flip(1).contiguous(), gt) is None
    assert again.find(lq.reshape(3, 5, 4), gt) is None
    assert ScoreJournal(path, ["weights", 1]).find(lq, gt) is None
