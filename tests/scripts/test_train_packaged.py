"""scripts/train_packaged.sh: cycles of a training, of which the best weights are kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mambair.weights.checkpoint import read_checkpoint

SHRINK = {
    r"embed_dim: \d+": "embed_dim: 8",
    r"depths: \[.*\]": "depths: [1]",
    r"total_batch_size: \d+": "total_batch_size: 1",
    r"gt_size: \d+": "gt_size: 32",
    r"print_freq: \d+": "print_freq: 1",
    r"num_worker_per_gpu: \d+": "num_worker_per_gpu: 0",
}


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(repository / "scripts" / "train_packaged.sh"), *arguments],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_cycles_start_from_the_best_weights_and_are_not_repeated(repository: Path, tmp_path: Path) -> None:
    text = (repository / "options" / "train" / "train_MambaIR_small_SR_x4.yml").read_text()
    for written, smaller in SHRINK.items():
        text, changes = re.subn(written, smaller, text)
        assert changes == 1, written
    (tmp_path / "small.yml").write_text(text)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "code").symlink_to(repository)  # in place of a git worktree
    images = repository / "datasets" / "example"
    arguments = ["--recipe", str(tmp_path / "small.yml"), "--name", "tiny", "--home", str(tmp_path / "home")]
    arguments += ["--data", str(images / "gt"), "--validation", str(images / "val_gt")]
    arguments += ["--first", "2", "--iterations", "1", "--rate", "1e-6"]

    done = run(repository, *arguments, "--cycles", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    home = tmp_path / "home"
    first, second = (read_checkpoint(home / "packaged" / f"tiny_cycle{n}.safetensors") for n in (1, 2))
    assert json.loads(first.metadata["mambair.training"])["iterations"] == 2
    assert json.loads(second.metadata["mambair.training"])["iterations"] == 3
    kept = float((home / "best" / "tiny.psnr").read_text())
    assert f"tiny_cycle1: PSNR {kept} on" in done.stdout or f"tiny_cycle2: PSNR {kept} on" in done.stdout
    assert (home / "starts" / "tiny_cycle2.safetensors").is_file()

    again = run(repository, *arguments, "--cycles", "2")
    assert again.returncode == 0 and again.stdout == "", "both cycles are done"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--recipe is required"),
        (["--recipe"], "--recipe: expected a value"),
        (["--speed", "9"], "unknown option --speed"),
        (["--recipe", "no.yml", "--name", "a", "--data", ".", "--validation", "."], "--recipe no.yml: no such file"),
        (["--recipe", __file__, "--name", "a", "--data", "nowhere", "--validation", "."], "nowhere: no such folder"),
    ],
)
def test_wrong_usage(repository: Path, arguments: list[str], message: str) -> None:
    done = run(repository, *arguments)
    assert done.returncode == 2 and message in done.stderr
