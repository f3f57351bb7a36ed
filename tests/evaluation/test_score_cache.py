"""The score cache: what is in it is found again, whatever a crash left of its last line."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from mambair.evaluation.score_cache import ScoreCache, digest, key_of
from mambair.system.path_gate import UnsafePathError

ONE = {"image": "über | 画\n", "scores": {"psnr": 30.125, "ssim": 0.9}, "seconds": 0.5, "machine": "machine"}


def test_numbers_and_names_come_back(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "new" / "journal.jsonl")
    cache.add("a", ONE)
    cache.add("b", {**ONE, "scores": {"psnr": math.inf, "ssim": math.nan}})
    assert '"psnr": "inf", "ssim": "nan"' in cache.path.read_text("utf-8"), "JSON has no such numbers"
    again = ScoreCache(cache.path)
    assert again.find("a") == ONE
    entry = again.find("b")
    assert entry is not None and entry["scores"]["psnr"] == math.inf and math.isnan(entry["scores"]["ssim"])
    assert again.find("c") is None and len(again) == 2


@pytest.mark.parametrize("cut", [1, 10, 80])
def test_a_line_cut_off_by_a_crash_costs_itself_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    cache = ScoreCache(path)
    cache.add("a", ONE)
    cache.add("b", ONE)
    path.write_bytes(path.read_bytes()[:-cut])
    again = ScoreCache(path)
    assert again.find("a") == ONE and again.find("b") is None
    again.add("c", ONE)
    assert ScoreCache(path).find("c") == ONE and ScoreCache(path).find("a") == ONE


ENTRY = '{"key": "a", "version": 2, "scores": {"psnr": 30.5}, "seconds": 0.5, "machine": "m"}'
OTHERS = {
    **{text: text for text in ("", "{", "[1]", "null", '{"key": "a"}', '{"version": 2, "x": 2}', "\0")},
    "a list of scores": ENTRY.replace('{"psnr": 30.5}', "[30.5]"),
    "a score of text": ENTRY.replace("30.5", '"high"'),
    "a score of an object": ENTRY.replace("30.5", "{}"),
    "infinity": ENTRY.replace("30.5", "Infinity"),
    "seconds of text": ENTRY.replace("0.5", '"0.5"'),
    "no machine": ENTRY.replace('"m"', "null"),
    "a key of another type": ENTRY.replace('"a"', "1"),
    "deep": ENTRY.replace("30.5", '{"a":' * 100 + "1" + "}" * 100),
}


@pytest.mark.parametrize("line", OTHERS.values(), ids=OTHERS)
def test_lines_of_another_kind_are_ignored(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line + "\n" + ENTRY.replace('"a"', '"b"') + "\n", encoding="utf-8")
    cache = ScoreCache(path)
    assert len(cache) == 1 and cache.find("b") == {"scores": {"psnr": 30.5}, "seconds": 0.5, "machine": "m"}


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_in_place_of_the_cache_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine")
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "private")
    with pytest.raises(UnsafePathError, match=r"journal\.jsonl is a link, where a regular file is expected; remove it"):
        ScoreCache(tmp_path / "journal.jsonl")


def test_lines_of_another_version_are_not_used(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "journal.jsonl")
    cache.add("a", ONE)
    cache.path.write_text(cache.path.read_text("utf-8").replace('"version": 2', '"version": 1'), "utf-8")
    assert ScoreCache(cache.path).find("a") is None


def test_keys_tell_everything_apart() -> None:
    parts = [("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a1",)]
    assert len({key_of(each) for each in parts}) == len(parts)
    assert key_of([{"x": 1, "y": 2}]) == key_of([{"y": 2, "x": 1}])


def test_images_are_known_by_pixels_and_shape() -> None:
    image = torch.rand(3, 4, 5)
    images = [image, image.flip(1), image.reshape(3, 5, 4), image[:, :2]]
    assert len({digest(each) for each in images}) == len(images)
    assert digest(image.transpose(1, 2).contiguous().transpose(1, 2)) == digest(image)
