"""Peak memory does not depend on an image's size: 432 megapixels within 4 GB, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="no resource module")]
LIMIT = 4e9

PROGRAM = """
import resource, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from torch import nn
from mambair.images.files import ImageSpec, open_strips
from mambair.inference.restorer import Restorer
from mambair.folders.finish import Finish
from mambair.folders.pipeline import restore_files
from mambair.folders.resume import Ledger
from mambair.folders.plan import plan_jobs
from mambair.folders.target_size import TargetSize

folder, scale, width, height = Path(sys.argv[2]), *map(int, sys.argv[3:6])
ending, mode, copies = *sys.argv[6:8], int(sys.argv[8])
sizes = {"x2": TargetSize(2.0), "10000px": TargetSize(longest_side=10000)}
finish = Finish(sizes[sys.argv[9]], 0.5, compare=True) if len(sys.argv) > 9 else Finish()

class Replicate(nn.Module):
    upscale, in_chans = scale, 3
    def forward(self, x):
        return x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)

columns = np.arange(width)
def rows(start, stop):
    ramp = (np.arange(start, stop)[:, None] // 40 + columns // 50) % 256
    alpha = np.maximum(ramp - 99, 0)  # parts are fully transparent
    return np.stack([ramp, 255 - ramp, ramp // 2, alpha], axis=2).astype(np.uint8)[..., : len(mode)]

with open_strips(folder / "in" / "large.png", ImageSpec(height, width, mode, "uint8")) as writer:
    for start in range(0, height, 500):
        writer.write(rows(start, min(start + 500, height)))
for number in range(1, copies):
    shutil.copyfile(folder / "in" / "large.png", folder / "in" / f"large{number}.png")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = plan_jobs(folder / "in", folder / "out", format=ending)
restorer, ledger = Restorer(Replicate(), device="cpu"), Ledger(folder / "out", {})
report = restore_files(restorer, plan, finish=finish, ledger=ledger, quiet=True)
assert report.complete, report.failed
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, before * unit)
"""


@pytest.mark.parametrize(
    ("scale", "width", "height", "ending", "mode", "copies"),
    [
        (1, 12000, 9000, "png", "RGB", 1),
        (4, 6000, 4500, "png", "RGB", 1),
        (4, 6000, 4500, "tif", "RGB", 1),
        (1, 12000, 9000, "png", "RGBA", 2),
        (1, 6000, 4500, "png", "RGB", 4),
    ],
    ids=["x1", "x4", "x4-tiff", "x1-alpha-two", "x1-four-side-by-side"],
)
def test_peak_memory(
    tmp_path: Path, repository: Path, scale: int, width: int, height: int, ending: str, mode: str, copies: int
) -> None:
    arguments = [str(repository), str(tmp_path), *map(str, (scale, width, height)), ending, mode, str(copies)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peak, before = map(int, done.stdout.split())
    print(f"x{scale} {width}x{height} {mode} {ending}: peak {peak / 1e9:.2f} GB, {before / 1e9:.2f} before it began")
    assert peak < LIMIT
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(tmp_path / "out" / f"large.{ending}") as image:
        assert image.size == (width * scale, height * scale)


@pytest.mark.parametrize(
    ("ending", "mode", "asked", "size"),
    [
        ("png", "RGB", "x2", (12000, 9000)),
        ("jpg", "RGB", "x2", (12000, 9000)),
        ("png", "RGBA", "10000px", (10000, 7500)),
    ],
)
def test_peak_memory_of_other_sizes_than_the_network_s(
    tmp_path: Path, repository: Path, ending: str, mode: str, asked: str, size: tuple[int, int]
) -> None:
    """The network makes 432 megapixels; they are blended with the input, resampled and compared on the way."""
    arguments = [str(repository), str(tmp_path), "4", "6000", "4500", ending, mode, "1", asked]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peak, before = map(int, done.stdout.split())
    print(f"{asked} {mode} {ending}: peak {peak / 1e9:.2f} GB, {before / 1e9:.2f} before it began")
    assert peak < LIMIT
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(tmp_path / "out" / f"large.{ending}") as image:
        assert image.size == size
    assert (tmp_path / "out" / "large_compare.html").is_file()
