from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mambair.images.alpha import enlarged_rows, fill_transparent
from mambair.images.resize import imresize


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16"])
def test_hidden_colour_is_replaced_and_visible_colour_kept(dtype: str) -> None:
    white = 1 if dtype.startswith("float") else np.iinfo(dtype).max
    colour = np.zeros((37, 53, 3), dtype=dtype)  # black under the transparent part
    alpha = np.zeros((37, 53), dtype=dtype)
    colour[10:20, 10:20] = white
    alpha[10:20, 10:20] = white
    alpha[15, 15] = white * 0.1  # half visible counts as visible
    before = colour.copy()
    filled = fill_transparent(colour, alpha)
    assert filled.dtype == colour.dtype
    assert (filled == white).all(), "the only visible colour is white, so that is what spreads"
    assert np.array_equal(colour, before)


@pytest.mark.parametrize("height", [7, 8, 40, 61])
def test_going_through_it_in_bands_changes_nothing(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    generator = np.random.default_rng(0)
    colour = generator.integers(0, 256, (height, 33, 3), dtype=np.uint8)
    alpha = (generator.random((height, 33)) > 0.9).astype(np.uint8)
    expected = fill_transparent(colour, alpha)
    monkeypatch.setattr("mambair.images.alpha._BAND", 8)
    assert np.array_equal(fill_transparent(colour, alpha), expected)


def test_each_side_takes_the_colour_that_is_near() -> None:
    colour = np.zeros((16, 64, 1), dtype=np.uint8)
    alpha = np.zeros((16, 64), dtype=np.uint8)
    colour[:, :8], colour[:, -8:] = 50, 200
    alpha[:, :8] = alpha[:, -8:] = 255
    filled = fill_transparent(colour, alpha)[..., 0]
    assert (filled[:, :12] == 50).all() and (filled[:, -12:] == 200).all()


@pytest.mark.parametrize("value", [0, 255], ids=["all-transparent", "all-opaque"])
def test_nothing_to_do(value: int) -> None:
    colour = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert fill_transparent(colour, np.full((4, 4), value, dtype=np.uint8)) is colour


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 23)])
def test_rows_are_those_of_the_whole_enlarged_alpha(shape: tuple[int, int], scale: int, dtype: str) -> None:
    generator = np.random.default_rng(0)
    alpha = generator.random(shape) * (1 if dtype == "float32" else np.iinfo(dtype).max)
    alpha = np.round(alpha, 3).astype(dtype)
    whole = imresize(alpha, scale) if scale > 1 else alpha
    whole = np.clip(whole, 0, 1) if dtype == "float32" else whole
    cuts = sorted({0, shape[0] // 3, shape[0] // 2, shape[0]})
    rows = [enlarged_rows(alpha, scale, a * scale, b * scale) for a, b in pairwise(cuts)]
    joined = np.concatenate(rows)
    assert joined.dtype == alpha.dtype
    # one unit in the last place of float32: the same numbers are added in matrices of another shape
    assert np.abs(joined.astype(float) - whole.astype(float)).max() <= (1e-7 if dtype == "float32" else 0)


def test_opaque_stays_opaque() -> None:
    assert (enlarged_rows(np.full((9, 9), 255, dtype=np.uint8), 4, 0, 36) == 255).all()
