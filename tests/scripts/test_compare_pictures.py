"""scripts/compare_pictures.py: pictures of known size in known places, to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from mambair.images.files import read_rgb
from mambair.images.resize import imresize


def test_bicubic_is_left_and_ours_is_right(
    load_script: Callable[[str], ModuleType], repository: Path, tmp_path: Path
) -> None:
    script = load_script("compare_pictures")
    image = repository / "datasets" / "example" / "lr_x4" / "chelsea.png"
    assert script.main(["--images", str(image), "--out", str(tmp_path / "sheet.png")]) == 0
    drawn, bicubic = read_rgb(tmp_path / "sheet.png"), imresize(read_rgb(image), 4)
    height, width = bicubic.shape[:2]
    assert drawn.shape == (height + script.LABEL, 2 * width + script.GAP, 3)
    left, right = drawn[script.LABEL :, :width], drawn[script.LABEL :, width + script.GAP :]
    assert np.array_equal(left, bicubic)
    assert not np.array_equal(right, bicubic)


def test_the_held_out_pictures_are_ten_and_always_the_same(
    load_script: Callable[[str], ModuleType], development_data: Path
) -> None:
    script = load_script("compare_pictures")
    first, second = (list(script.held_out(development_data / "data")) for _ in range(2))
    assert len(first) == 10
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert {max(picture.shape[:2]) for picture in first} == {script.SIDE}
