"""The pictures in ``datasets/example``: small, complete, documented, and made by the script that says so."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mambair.images.files import list_images, read_image
from mambair.images.resize import imresize


def test_sizes(repository: Path) -> None:
    images = list_images(repository / "datasets" / "example", recursive=True)
    assert len(images) == 16
    assert sum(path.stat().st_size for path in images) < 1_500_000
    for path in images:
        pixels = read_image(path).pixels
        assert pixels.shape[2] == 3
        if path.parent.name != "lr_x4":
            assert 160 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 256


def test_inputs_are_the_bicubic_reductions(repository: Path) -> None:
    folder = repository / "datasets" / "example"
    names = [path.name for path in list_images(folder / "lr_x4")]
    assert names == [path.name for path in list_images(folder / "val_gt")]
    for name in names:
        gt = read_image(folder / "val_gt" / name).pixels
        assert np.array_equal(imresize(gt, 1 / 4), read_image(folder / "lr_x4" / name).pixels)


def test_the_readme_lists_every_file_with_its_checksum(repository: Path) -> None:
    text = (repository / "datasets" / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"`(example/[^`]+)` \|.*\| `([0-9a-f]{64})` \|", text))
    found = {
        path.relative_to(repository / "datasets").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in list_images(repository / "datasets" / "example", recursive=True)
    }
    assert listed == found


def test_the_script_makes_these_pictures(repository: Path) -> None:
    pytest.importorskip("skimage")
    command = [sys.executable, "scripts/make_example_images.py", "--check"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 images compared, 0 differ" in done.stdout
