"""The command line of scripts/download_data.py; the work behind it is tested in tests/data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts" / "download_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_usage_is_refused_with_2(repository: Path) -> None:
    done = run(repository)
    assert done.returncode == 2 and "name a data set" in done.stderr


def test_dry_run_tells_addresses_and_folders_and_fetches_nothing(repository: Path, tmp_path: Path) -> None:
    done = run(repository, "car", "Set5", "--scale", "4", "--root", str(tmp_path / "data"), "--dry-run")
    assert done.returncode == 0
    assert "/classic5/lena.bmp -> " in done.stdout
    assert done.stdout.count("benchmark.tar -> ") == 1
    assert "Set5/LR_bicubic/X4" in done.stdout and "X3" not in done.stdout
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_lists_the_known_ones(repository: Path, tmp_path: Path) -> None:
    done = run(repository, "Set6", "--root", str(tmp_path))
    assert done.returncode == 2 and "there are DIV2K" in done.stderr
    failed = run(repository, "WED", "--root", str(tmp_path))
    assert failed.returncode == 1 and "RAR archive" in failed.stderr
