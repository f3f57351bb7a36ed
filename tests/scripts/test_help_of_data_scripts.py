"""``--help`` of the data scripts answers at once: nothing heavy is imported before the arguments are read."""

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
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "numpy", "cv2", "PIL", "tqdm"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["download_data.py", "--help"],
        ["lint_data.py", "--help"],
        ["prepare_data.py", "--help"],
        ["prepare_data.py", "sub-images", "--help"],
        ["show_data.py", "--help"],
    ],
    ids=" ".join,
)
def test_help_is_quick_and_tells_the_exit_codes(repository: Path, arguments: list[str]) -> None:
    script = str(repository / "scripts" / arguments[0])
    command = [sys.executable, "-c", PROGRAM, script, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout and ("Exit code: 0" in done.stdout or "sub-images" in arguments)
