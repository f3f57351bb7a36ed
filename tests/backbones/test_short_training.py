"""A short training on real images beats what the networks start from: bicubic interpolation, or the damaged image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("network", ["VimSR", "VSSMUNet"])
@pytest.mark.parametrize("task", ["sr_x2", "dn25", "jpeg40"])
def test_short_training(network: str, task: str, repository: Path, development_data: Path) -> None:
    data = development_data / "data"
    command = [sys.executable, str(repository / "benchmarks" / "bench_backbone_training.py"), "--iterations", "300"]
    command += ["--train", str(data / "train" / "T91"), "--test", str(data / "test" / "Set5" / "HR")]
    done = subprocess.run(
        [*command, "--tasks", task, "--networks", network],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        cwd=repository,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"| {task} | {network} |" in done.stdout
