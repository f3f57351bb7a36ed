"""The command line of scripts/prepare_data.py; the work behind it is tested in tests/data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mambair.images.files import list_images


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("prepare_data")


def run(script: ModuleType, *arguments: object) -> int:
    """The exit code, that of wrong usage, too."""
    try:
        return script.main([str(argument) for argument in arguments])
    except SystemExit as usage:
        return int(usage.code or 0)


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "HR"
    folder.mkdir()
    for path in list_images(repository / "datasets" / "example" / "lr_x4"):
        shutil.copyfile(path, folder / path.name)
    return folder


def test_from_ground_truth_to_pairs_of_sub_images(
    script: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "lr", source, tmp_path / "LR", "--scale", 2, 4, "--workers", 1) == 0
    assert "4 made, 0 there already, 0 failed" in capsys.readouterr().out
    pairs = [
        "--lq",
        tmp_path / "LR" / "X4",
        "--lq-output",
        tmp_path / "LR_sub",
        "--scale",
        4,
        "--filename-tmpl",
        "{}x4",
    ]
    arguments = ["sub-images", source, tmp_path / "HR_sub", "--size", 32, "--step", 16, "--workers", 2, *pairs]
    assert run(script, *arguments) == 0
    assert len(list_images(tmp_path / "HR_sub")) == len(list_images(tmp_path / "LR_sub")) > 4
    assert run(script, *arguments) == 0
    assert "0 made, 4 there already" in capsys.readouterr().out


def test_meta_info_and_lmdb_of_a_damaged_set(
    script: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(script, "meta-info", source, tmp_path / "meta.txt", "--workers", 1) == 1
    assert "torn.png" in capsys.readouterr().err and not (tmp_path / "meta.txt").exists()
    (source / "torn.png").unlink()
    assert run(script, "meta-info", source, tmp_path / "meta.txt", "--workers", 1) == 0
    assert len((tmp_path / "meta.txt").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lr", "nowhere", "LR"], "no such folder"),
        (["sub-images", "HR", "sub", "--size", 33, "--scale", 2], "multiples of the scale 2"),
        (["sub-images", "HR", "sub", "--lq", "HR"], "belong together"),
        (["lmdb", "HR", "set.lmdb", "--workers", 0], "--workers must be at least 1"),
    ],
    ids=["folder", "size", "half a pair", "workers"],
)
def test_usage_is_refused_with_2(
    script: ModuleType,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    text: str,
) -> None:
    monkeypatch.chdir(source.parent)
    assert run(script, *arguments) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in source.parent.iterdir()] == ["HR"]
