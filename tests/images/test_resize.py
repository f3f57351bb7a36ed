"""MATLAB's bicubic: hand-computed weights, a slow definition, the published pairs, basicsr's float version."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mambair.images.files import read_image
from mambair.images.resize import contributions, cubic, imresize, resized_strips
from mambair.registry import basicsr_installed, import_basicsr

SHAPES = [(1, 1), (1, 9), (2, 3, 1), (5, 4, 3), (17, 23, 3), (40, 31, 4), (67, 150)]
SCALES = [1 / 2, 1 / 3, 1 / 4, 0.7, 1.0, 1.5, 2, 3, (0.3, 0.8), (0.8, 0.3), (2.0, 0.5)]


def slow_imresize(image: np.ndarray, scale: float | tuple[float, float]) -> np.ndarray:
    """The definition: each output pixel as a sum over reflected inputs, one axis after the other, in float64."""
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    result = image
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        factor, length = scales[axis], image.shape[axis]
        source = np.moveaxis(result, axis, 0).astype(np.float64)
        rows = []
        for place in range(max(1, math.ceil(length * factor - 1e-9))):
            centre, reach = (place + 0.5) / factor - 0.5, 2 / min(factor, 1.0)
            taps = range(math.floor(centre - reach), math.ceil(centre + reach) + 1)
            weights = cubic(min(factor, 1.0) * (centre - np.array(taps)))
            reflected = [tap % (2 * length) for tap in taps]
            reflected = [tap if tap < length else 2 * length - 1 - tap for tap in reflected]
            rows.append(np.tensordot(weights / weights.sum(), source[reflected], axes=1))
        result = np.moveaxis(np.stack(rows), 0, axis)
        if image.dtype.kind == "u":
            # sums that are halves but for the last bits go up, in whatever order they were added
            result = np.clip(np.floor(result + 0.5 + 1e-9), 0, np.iinfo(image.dtype).max)
        result = result.astype(image.dtype)
    return result


def random_image(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        pytest.param(1 / 2, np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256, id="halved"),
        pytest.param(2.0, np.array([-3, 29, 111, -9]) / 128, id="doubled"),
        pytest.param(1.0, np.array([1.0]), id="same"),
    ],
)
def test_weights_computed_by_hand(scale: float, expected: np.ndarray) -> None:
    weights, _ = contributions(40, round(40 * scale), scale)
    middle = weights[len(weights) // 2]
    np.testing.assert_allclose(middle[middle != 0], expected, rtol=0, atol=1e-15)


def test_borders_repeat_the_edge_pixel() -> None:
    weights, indices = contributions(8, 4, 0.5)
    assert indices[0][weights[0] != 0].tolist() == [2, 1, 0, 0, 1, 2, 3, 4]
    assert indices[-1][weights[-1] != 0].tolist() == [3, 4, 5, 6, 7, 7, 6, 5]


def test_small_image_computed_by_hand() -> None:
    # one bright row of 8: rows first give 0.4336 * 200 = 87 (86.72) and 0.1133 * 200 = 23 (22.66), then nothing changes
    image = np.zeros((8, 8), np.uint8)
    image[3] = 200
    expected = np.repeat(np.array([[0], [87], [23], [0]], np.uint8), 4, axis=1)
    assert np.array_equal(imresize(image, 0.5), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integers_equal_the_definition(shape: tuple[int, ...], scale: float, dtype: str) -> None:
    image = random_image(shape, dtype)
    assert np.array_equal(imresize(image, scale), slow_imresize(image, scale))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_floats_equal_the_definition_and_are_not_clipped(scale: float, dtype: str) -> None:
    image = random_image((19, 26, 3), dtype)
    resized = imresize(image, scale)
    # positions of up to 65 are exact to 1e-14 in float64, and so are the weights; float32 has its own last bits
    tolerance = 1e-13 if dtype == "float64" else 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(resized, slow_imresize(image, scale), rtol=0, atol=tolerance)
    assert resized.min() < 0


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 1 / 6], ids=str)
def test_ties_round_up(scale: float) -> None:
    # values 0 and 255, or two neighbours, give many sums that are exactly a half
    for low, high in ((0, 255), (7, 8), (127, 128)):
        image = np.where(np.random.default_rng(1).random((60, 72, 3)) < 0.5, low, high).astype(np.uint8)
        assert np.array_equal(imresize(image, scale), slow_imresize(image, scale))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tall_images_are_computed_in_several_strips(dtype: str) -> None:
    image = random_image((1650, 13), dtype)
    assert np.array_equal(imresize(image, 1 / 3), slow_imresize(image, 1 / 3))


def test_less_exact_products_that_a_user_allows_are_not_used() -> None:
    image = random_image((60, 72, 3), "uint8")
    expected = slow_imresize(image, 1 / 4)
    try:
        torch.set_float32_matmul_precision("medium")
        assert np.array_equal(imresize(image, 1 / 4), expected)
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(imresize(image, 1 / 4), expected)


def test_the_modes_of_torch_change_nothing() -> None:
    image = random_image((60, 72, 3), "uint8")
    expected = slow_imresize(image, 1 / 2)
    _in_a_new_thread(lambda: _resize_in_all_modes(image, expected))


def _resize_in_all_modes(image: np.ndarray, expected: np.ndarray) -> None:
    with torch.inference_mode():
        assert np.array_equal(imresize(image, 1 / 2), expected)
    with torch.device("meta"):
        assert np.array_equal(imresize(image, 1 / 2), expected)
    assert np.array_equal(imresize(image, 1 / 2), expected)
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(imresize(image, 1 / 2), expected)


def _in_a_new_thread(call: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def test_threads_do_not_share_memory() -> None:
    images = [random_image((200 + 8 * number, 120, 3), "uint8", number) for number in range(12)]
    expected = [imresize(image, 1 / 4) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda image: imresize(image, 1 / 4), images))
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_published_pairs_bit_for_bit(development_data: Path, name: str, scale: int) -> None:
    folder = development_data / "data" / "test" / "Set5"
    gt = read_image(folder / "HR" / f"{name}.png").pixels
    gt = gt[: gt.shape[0] // scale * scale, : gt.shape[1] // scale * scale]
    assert np.array_equal(imresize(gt, 1 / scale), read_image(folder / f"LRbicx{scale}" / f"{name}.png").pixels)


@pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")
@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 0.45, 1.5, 3])
def test_equals_basicsr_on_floats(scale: float) -> None:
    import_basicsr()
    from basicsr.utils.matlab_functions import imresize as imresize_of_basicsr

    image = np.random.default_rng(0).random((50, 61, 3)).astype(np.float32)
    # basicsr computes positions and weights in float32: errors of 4e-6 at positions up to 61 are measured
    tolerance = 1e-6 if scale < 1 else 1e-5
    np.testing.assert_allclose(imresize(image, scale), imresize_of_basicsr(image, scale), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("scale", [1 / 3, 0.7, 2.5])
def test_a_constant_stays_what_it_is(dtype: str, scale: float) -> None:
    image = np.full((13, 11, 3), 77, dtype=dtype)
    resized = imresize(image, scale)
    assert resized.dtype == image.dtype
    np.testing.assert_allclose(resized, 77, rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [((10, 7), 1.1, (11, 8)), ((15, 15), 0.2, (3, 3)), ((2, 2), 0.1, (1, 1)), ((7, 9), 1 / 3, (3, 3))],
)
def test_output_size_is_the_ceiling(shape: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert imresize(random_image(shape, "uint8"), scale).shape == expected


def test_size_stands_for_the_two_scales() -> None:
    image = random_image((12, 20, 3), "uint8")
    assert np.array_equal(imresize(image, size=(6, 5)), imresize(image, (6 / 12, 5 / 20)))


def test_input_is_not_written_and_may_be_a_view() -> None:
    image = random_image((20, 30, 3), "uint8")
    before = image.copy()
    view = image[::-1, ::2]
    assert np.array_equal(imresize(view, 0.5), imresize(view.copy(), 0.5))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param({"image": np.zeros((4, 4), np.int32), "scale": 2}, "dtype must be one of", id="dtype"),
        pytest.param({"image": np.zeros((4,), np.uint8), "scale": 2}, "got shape (4,)", id="one axis"),
        pytest.param({"image": np.zeros((0, 4), np.uint8), "scale": 2}, "non-empty", id="empty"),
        pytest.param({"image": np.zeros((4, 4), np.uint8)}, "exactly one of scale and size", id="neither"),
        pytest.param({"image": np.zeros((4, 4), np.uint8), "scale": 2, "size": (2, 2)}, "exactly one", id="both"),
        pytest.param({"image": np.zeros((4, 4), np.uint8), "scale": 0}, "positive and finite", id="zero"),
        pytest.param({"image": np.zeros((4, 4), np.uint8), "scale": math.nan}, "positive and finite", id="nan"),
        pytest.param({"image": np.zeros((4, 4), np.uint8), "size": (0, 2)}, "two positive numbers", id="size"),
    ],
)
def test_wrong_arguments_are_explained(arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=r".+") as raised:
        imresize(**arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize("heights", [[1], [7], [64], [1000]], ids=lambda heights: f"strips of {heights[0]}")
@pytest.mark.parametrize(
    "size",
    [(300, 90), (75, 45), (599, 181), (1200, 360), (31, 17), (300, 45), (75, 90), (1, 1), (900, 30), (2, 500)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_strips_give_the_rows_of_the_whole(dtype: str, size: tuple[int, int], heights: list[int]) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 65536 if dtype == "uint16" else 256, (300, 90, 3)).astype(dtype)
    strips = [image[top : top + heights[0]] for top in range(0, 300, heights[0])]
    found = np.concatenate(list(resized_strips(strips, 300, size)))
    expected = imresize(image, size=size)
    if dtype == "float32":  # the same sums in another order
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, expected)


def test_strips_wait_for_no_more_than_they_need() -> None:
    taken = []

    def strips() -> Iterator[NDArray[np.generic]]:
        for top in range(0, 40000, 100):
            taken.append(top)
            yield np.full((100, 2, 1), top % 251, dtype=np.uint8)

    rows = resized_strips(strips(), 40000, (20000, 2))
    next(rows)
    assert len(taken) < 20
