"""The scripts around ``mambair data``: they run from a checkout, and ``--help`` imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:]]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not {"torch", "numpy", "cv2", "PIL", "tqdm"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["download_data.py", "--help"], 0, "usage: mambair data download"),
        (["lint_data.py", "--help"], 0, "usage: mambair data lint"),
        (["prepare_data.py", "--help"], 0, "usage: mambair data prepare"),
        (["prepare_data.py", "sub-images", "--help"], 0, "usage: mambair data prepare sub-images"),
        (["lint_data.py"], 2, "--gt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_usage_are_quick(repository: Path, arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    script = str(repository / "scripts" / arguments[0])
    command = [sys.executable, "-I", "-c", PROGRAM, script, *arguments[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert text in (done.stderr if code else done.stdout)


@pytest.mark.slow
def test_workers_start_from_a_script(repository: Path, tmp_path: Path) -> None:
    source, script = repository / "datasets" / "example" / "lr_x4", repository / "scripts" / "prepare_data.py"
    command = [sys.executable, "-I", str(script), "lr", str(source), "LR", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "LR: 4 made, 0 there already, 0 failed\n"
