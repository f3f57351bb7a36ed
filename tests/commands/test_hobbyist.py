"""The hobbyist's script: one photograph, one command, no options, with the network that comes with mambair."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((first.astype(np.float64) - second) ** 2) / 255**2))


def test_one_photograph_is_enlarged_better_than_by_resampling(
    development_data: Path, repository: Path, tmp_path: Path
) -> None:
    with Image.open(development_data / "data" / "test" / "Set5" / "HR" / "bird.png") as picture:
        original = picture.convert("RGB")
    small = original.resize((144, 144), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[271] = "a camera"
    small.save(tmp_path / "my photo.jpg", quality=97, subsampling=0, exif=exif)
    command = [sys.executable, "-W", "ignore", "-m", "mambair", "restore", "my photo.jpg"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("my photo.jpg: 144 x 144 pixels, JPEG of quality 97, noise about ")
    assert ": task sr by mambair_small_x4.safetensors, result x2" in lines[0]
    assert "1 of 1 images restored" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photo.jpg", "my photo_x2.jpg"]
    with Image.open(tmp_path / "my photo_x2.jpg") as result:
        assert (result.format, result.size, result.getexif()[271]) == ("JPEG", (288, 288), "a camera")
        restored = np.asarray(result)
    with Image.open(tmp_path / "my photo.jpg") as photo:
        resampled = np.asarray(photo.resize((288, 288), Image.Resampling.BICUBIC))
    # the network gains more than 1 dB here; half of that is left to other versions of torch and libjpeg
    assert psnr(restored, np.asarray(original)) > psnr(resampled, np.asarray(original)) + 0.5
    again = subprocess.run(command, check=False, **options)
    assert again.returncode == 2 and "my photo_x2.jpg is there already: --overwrite replaces it" in again.stderr
