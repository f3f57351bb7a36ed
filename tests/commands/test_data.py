"""``mambair data``: usage, exit codes and files; the work behind it is tested in tests/data_tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mambair.commands import data
from mambair.images.files import list_images


def run(*arguments: object) -> int:
    """The exit code, that of wrong usage, too."""
    try:
        return data.main([str(argument) for argument in arguments])
    except SystemExit as usage:
        return int(usage.code or 0)


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "HR"
    folder.mkdir()
    for path in list_images(repository / "datasets" / "example" / "lr_x4"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fetch"], "invalid choice: 'fetch'"),
        (["download"], "name a data set"),
        (["download", "Set5", "--attempts", 0], "--attempts: must be an integer from 1, got '0'"),
        (["download", "Set6"], "there are DIV2K"),
        (["prepare"], "the following arguments are required: KIND"),
        (["prepare", "lr", "nowhere", "LR"], "no such folder"),
        (["prepare", "sub-images", "HR", "sub", "--size", 33, "--scale", 2], "multiples of the scale 2"),
        (["prepare", "sub-images", "HR", "sub", "--lq", "HR"], "must be given together"),
        (["prepare", "lmdb", "HR", "set.lmdb", "--workers", 0], "--workers: must be an integer from 1, got '0'"),
        (["lint", "--gt", "nowhere"], "no such folder"),
        (["lint", "--gt", "HR", "--scale", "x"], "--scale: must be an integer from 1, got 'x'"),
        (["lint", "--gt", "HR", "--filename-tmpl", "x4"], "--filename-tmpl: expected a name with {}, once"),
        (["lint", "--gt", "HR", "--test", "a", "--no-duplicates"], "leave --no-duplicates out"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_usage_is_2_and_makes_nothing(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    text: str,
) -> None:
    monkeypatch.chdir(source.parent)
    assert run(*arguments) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in source.parent.iterdir()] == ["HR"]


def test_dry_run_shows_addresses_and_folders_and_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("download", "car", "Set5", "--scale", "4", "--root", tmp_path / "data", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "/classic5/lena.bmp -> " in shown
    assert shown.count("benchmark.tar -> ") == 1
    assert "Set5/LR_bicubic/X4" in shown and "X3" not in shown
    assert not (tmp_path / "data").exists()


def test_what_no_program_can_fetch_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("download", "WED", "--root", tmp_path) == 1
    assert "RAR archive" in capsys.readouterr().err


def test_from_ground_truth_to_pairs_of_sub_images(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", "lr", source, tmp_path / "LR", "--scale", 2, 4, "--workers", 1, "--quiet") == 0
    shown = capsys.readouterr()
    assert "4 made, 0 there already, 0 failed" in shown.out and shown.err == ""
    arguments = ["sub-images", source, tmp_path / "HR_sub", "--size", 32, "--step", 16, "--workers", 2]
    arguments += ["--lq", tmp_path / "LR" / "X4", "--lq-output", tmp_path / "LR_sub", "--scale", 4]
    arguments += ["--filename-tmpl", "{}x4"]
    assert run("prepare", *arguments) == 0
    assert len(list_images(tmp_path / "HR_sub")) == len(list_images(tmp_path / "LR_sub")) > 4
    assert run("prepare", *arguments) == 0
    assert "0 made, 4 there already" in capsys.readouterr().out


def test_meta_info_and_lmdb_of_a_damaged_set(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run("prepare", "meta-info", source, tmp_path / "meta.txt", "--workers", 1) == 1
    assert "torn.png" in capsys.readouterr().err and not (tmp_path / "meta.txt").exists()
    (source / "torn.png").unlink()
    assert run("prepare", "meta-info", source, tmp_path / "meta.txt", "--workers", 1) == 0
    assert len((tmp_path / "meta.txt").read_text().splitlines()) == 4


def test_lint_counts_faults_and_not_warnings(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lint", "--gt", source, "--workers", 1) == 0
    assert capsys.readouterr().out == "nothing found\n"
    assert run("lint", "--gt", source, "--gt-size", 1000, "--workers", 1, "--quiet") == 1
    shown = capsys.readouterr()
    assert "fault: small" in shown.out and "4 x small" in shown.out and shown.err == ""
