"""Files of the working folder that are named like modules: nothing of them is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ("pickle", "signal", "struct", "random", "numpy", "yaml")


@pytest.fixture
def hostile(tmp_path: Path, repository: Path) -> Path:
    """A folder with two images, and files that leave a trace where they are run."""
    folder = tmp_path / "hostile"
    (folder / "in").mkdir(parents=True)
    source = repository / "datasets" / "example" / "lr_x4" / "astronaut.png"
    for name in "ab":
        (folder / "in" / f"{name}.png").write_bytes(source.read_bytes())
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'run')!r}, 'a').write(__name__)\nraise SystemExit(9)\n"
        )
    return folder


def run(arguments: list[str], hostile: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=hostile, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_spawned_workers(hostile: Path, repository: Path, tmp_path: Path) -> None:
    script = tmp_path / "mambair_command.py"  # as an installed command: its own folder is the first import path
    script.write_text(f"import sys\nsys.path.insert(0, {str(repository)!r})\nfrom mambair.cli import run\n"
                      "if __name__ == '__main__':\n    run()\n")  # fmt: skip
    arguments = [sys.executable, str(script), "data", "prepare", "meta-info", "in", "m.txt", "--workers", "2"]
    done = run(arguments, hostile)
    assert not (tmp_path / "run").exists()
    assert (done.returncode, len((hostile / "m.txt").read_text().splitlines())) == (0, 2), done.stderr


def test_libraries_of_python_m(hostile: Path, repository: Path, tmp_path: Path) -> None:
    """What Python itself imports before the package begins cannot be helped: docs/security.md names ``python -P``."""
    for name in NAMES[:4]:
        (hostile / f"{name}.py").unlink()
    done = run([sys.executable, "-m", "mambair", "weights", "list"], hostile, PYTHONPATH=str(repository))
    assert not (tmp_path / "run").exists()
    assert done.returncode == 0, done.stderr
