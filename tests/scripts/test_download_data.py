"""The command line of scripts/download_data.py; the work behind it is tested in tests/data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("download_data")


def run(script: ModuleType, *arguments: object) -> int:
    """The exit code, that of wrong usage, too."""
    try:
        return script.main([str(argument) for argument in arguments])
    except SystemExit as usage:
        return int(usage.code or 0)


def test_usage_is_refused_with_2(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(script) == 2
    assert "name a data set" in capsys.readouterr().err


def test_dry_run_tells_addresses_and_folders_and_fetches_nothing(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "car", "Set5", "--scale", "4", "--root", tmp_path / "data", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "/classic5/lena.bmp -> " in told
    assert told.count("benchmark.tar -> ") == 1
    assert "Set5/LR_bicubic/X4" in told and "X3" not in told
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_and_one_that_no_program_can_fetch(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "Set6", "--root", tmp_path) == 2
    assert "there are DIV2K" in capsys.readouterr().err
    assert run(script, "WED", "--root", tmp_path) == 1
    assert "RAR archive" in capsys.readouterr().err
