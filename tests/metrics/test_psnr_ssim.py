"""PSNR and SSIM against the written formulas, scikit-image and, where it is installed, BasicSR's functions."""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
import torch

from mambair.metrics import calculate_metric, calculate_psnr, calculate_ssim
from mambair.registry import METRIC_REGISTRY, basicsr_installed, import_basicsr

# one block, several blocks, sizes that no tile divides, the smallest SSIM can measure, and one worth threads
SHAPES = {
    "smallest": (11, 11, 3),
    "odd": (37, 53, 3),
    "grey": (40, 31, 1),
    "many-blocks": (97, 531, 3),
    "threads": (530, 521, 1),
}


def noisy_pair(shape: tuple[int, ...], *, sigma: float = 20.0, dtype: type = np.uint8, seed: int = 0):
    """A random image and the same with noise."""
    rng = np.random.default_rng(seed)
    peak = 65535 if dtype is np.uint16 else 255
    image = rng.integers(0, peak + 1, shape).astype(dtype)
    noise = rng.normal(0.0, sigma * peak / 255, shape)
    return image, np.clip(np.rint(image + noise), 0, peak).astype(dtype)


def psnr_by_formula(x: np.ndarray, y: np.ndarray, peak: float = 255.0) -> float:
    return 10 * math.log10(peak**2 / np.mean((x.astype(float) - y.astype(float)) ** 2))


def ssim_by_formula(x: np.ndarray, y: np.ndarray, peak: float = 255.0) -> float:
    """Equation 13 of the paper, every window on its own, [H, W, C]."""
    offsets = np.arange(-5, 6)
    taps = np.exp(-(offsets**2) / 4.5)
    weights = np.outer(taps, taps) / taps.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(values, (11, 11), axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", windows, weights)

    x, y = x.astype(float), y.astype(float)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def luma_by_formula(bgr: np.ndarray, peak: float = 255.0) -> np.ndarray:
    """BT.601: Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1]."""
    blue, green, red = np.moveaxis(bgr.astype(float) / peak, -1, 0)
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) * (peak / 255))[..., None]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8bit", "16bit"])
def test_equal_to_the_formulas(shape: tuple[int, int, int], dtype: type) -> None:
    image, other = noisy_pair(shape, dtype=dtype)
    peak = float(np.iinfo(dtype).max)
    assert calculate_psnr(image, other, 0) == pytest.approx(psnr_by_formula(image, other, peak), abs=1e-10)
    assert calculate_ssim(image, other, 0) == pytest.approx(ssim_by_formula(image, other, peak), abs=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8bit", "16bit"])
def test_luma_and_crop_equal_to_the_formulas(dtype: type) -> None:
    image, other = noisy_pair((45, 38, 3), dtype=dtype)
    peak = float(np.iinfo(dtype).max)
    luma, luma_other = (luma_by_formula(each[4:-4, 4:-4], peak) for each in (image, other))
    # 8-bit luma is rounded to float32 as BasicSR does: 1e-5 of 255, averaged over 1000 pixels
    psnr = calculate_psnr(image, other, 4, test_y_channel=True)
    assert psnr == pytest.approx(psnr_by_formula(luma, luma_other, peak), abs=1e-6)
    ssim = calculate_ssim(image, other, 4, test_y_channel=True)
    assert ssim == pytest.approx(ssim_by_formula(luma, luma_other, peak), abs=1e-7)


def test_sixteen_bits_are_measured_to_the_last_code() -> None:
    image, _ = noisy_pair((32, 32, 3), dtype=np.uint16)
    other = image.copy()
    other[..., 1] ^= 1  # green differs by one code, so luma by 128.553 / 255 of one
    expected = 20 * math.log10(65535 / (128.553 / 255))
    assert calculate_psnr(image, other, 0, test_y_channel=True) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equal_to_scikit_image(shape: tuple[int, int, int]) -> None:
    measures = pytest.importorskip("skimage.metrics")
    image, other = noisy_pair(shape)
    ssim = measures.structural_similarity(
        image, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    assert calculate_ssim(image, other, 0) == pytest.approx(ssim, abs=1e-9)
    assert calculate_psnr(image, other, 0) == pytest.approx(measures.peak_signal_noise_ratio(image, other), abs=1e-9)


@pytest.fixture(scope="module")
def basicsr_metrics() -> ModuleType:
    if not basicsr_installed():
        pytest.skip("basicsr is not installed")
    import_basicsr()
    return importlib.import_module("basicsr.metrics")


@pytest.mark.parametrize("name", ["calculate_psnr", "calculate_ssim"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("sigma", [0.4, 5.0, 200.0], ids=lambda sigma: f"sigma{sigma}")
@pytest.mark.parametrize("luma", [False, True], ids=["rgb", "y"])
def test_equal_to_basicsr(
    basicsr_metrics: ModuleType, name: str, shape: tuple[int, int, int], sigma: float, luma: bool
) -> None:
    image, other = noisy_pair(shape, sigma=sigma, seed=3)
    crop = 0 if shape[0] == 11 else 2
    ours = METRIC_REGISTRY.get(name)(image, other, crop_border=crop, test_y_channel=luma)
    theirs = getattr(basicsr_metrics, name)(image, other, crop_border=crop, test_y_channel=luma)
    assert ours == pytest.approx(float(theirs), abs=1e-6, rel=0)


# basicsr 1.4.2 on the two images made below: crop border, luma, PSNR, SSIM
BASICSR_GAVE = [
    (0, False, 34.40597802580671, 0.9975451943461356),
    (0, True, 36.74372656500175, 0.9969319547806562),
    (3, False, 34.40188580685724, 0.9975755824014513),
    (3, True, 36.74293578126642, 0.9969759272534516),
]


@pytest.mark.parametrize(("crop", "luma", "psnr", "ssim"), BASICSR_GAVE)
def test_equal_to_what_basicsr_gave(crop: int, luma: bool, psnr: float, ssim: float) -> None:
    row, column, channel = np.mgrid[:41, :58, :3]
    image = ((7 * row + 13 * column + 31 * channel + row * column) % 256).astype(np.uint8)
    error = (5 * row + 3 * column + channel) % 17 - 8
    other = np.clip(image.astype(int) + error, 0, 255).astype(np.uint8)
    assert calculate_psnr(image, other, crop, test_y_channel=luma) == pytest.approx(psnr, abs=1e-9)
    assert calculate_ssim(image, other, crop, test_y_channel=luma) == pytest.approx(ssim, abs=1e-9)


def test_float_images_equal_to_basicsr(basicsr_metrics: ModuleType) -> None:
    image, other = (each.astype(np.float32) + 0.25 for each in noisy_pair((40, 45, 3)))
    for luma in (False, True):
        for name in ("calculate_psnr", "calculate_ssim"):
            theirs = float(getattr(basicsr_metrics, name)(image, other, 0, test_y_channel=luma))
            assert METRIC_REGISTRY.get(name)(image, other, 0, test_y_channel=luma) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
def test_layouts_agree(metric) -> None:
    image, other = noisy_pair((30, 33, 3))
    expected = metric(image, other, 3, test_y_channel=True)
    planes = [np.ascontiguousarray(each.transpose(2, 0, 1)) for each in (image, other)]
    assert metric(*planes, 3, input_order="CHW", test_y_channel=True) == expected
    flipped = [each[::-1, ::-1][::-1, ::-1] for each in (image, other)]
    assert metric(*flipped, 3, test_y_channel=True) == expected
    grey = [each[..., 0] for each in (image, other)]
    assert metric(*grey, 3) == metric(*[each[..., None] for each in grey], 3)
    assert metric(*grey, 3, input_order="CHW") == metric(*grey, 3)
    assert metric(*grey, 3, test_y_channel=True) == metric(*grey, 3), "one channel has no luma to take"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_equal_images(dtype: type) -> None:
    image = noisy_pair((40, 40, 3))[0].astype(dtype)
    for luma in (False, True):
        assert calculate_psnr(image, image, 0, test_y_channel=luma) == math.inf
        assert calculate_ssim(image, image, 0, test_y_channel=luma) == pytest.approx(1.0, abs=1e-12)


def test_arguments_are_left_alone() -> None:
    image, other = noisy_pair((64, 64, 3))
    kept = image.copy(), other.copy()
    calculate_ssim(image, other, 2, test_y_channel=True)
    calculate_psnr(image, other, 2, test_y_channel=True)
    assert np.array_equal(image, kept[0])
    assert np.array_equal(other, kept[1])


def test_data_range_replaces_the_dtype() -> None:
    image, other = noisy_pair((32, 32, 1))
    unit = [each / 255 for each in (image, other)]
    assert calculate_psnr(*unit, 0, data_range=1.0) == pytest.approx(calculate_psnr(image, other, 0), abs=1e-10)
    assert calculate_ssim(*unit, 0, data_range=1.0) == pytest.approx(calculate_ssim(image, other, 0), abs=1e-10)


U8 = np.zeros((16, 16, 3), np.uint8)
FAULTS = {
    "shapes": ((U8, U8[:15]), {}, r"same shape, found \(16, 16, 3\) and \(15, 16, 3\)"),
    "order": ((U8, U8), {"input_order": "WHC"}, "must be 'HWC' or 'CHW', found 'WHC'"),
    "dimensions": ((U8[None], U8[None]), {}, r"found shape \(1, 16, 16, 3\)"),
    "negative-crop": ((U8, U8), {"crop_border": -1}, "crop_border: must be 0 or more, found -1"),
    "crop-eats-all": ((U8, U8), {"crop_border": 8}, "found 16x16 with crop_border 8"),
    "dtype": ((U8.astype(np.int32),) * 2, {}, "found int32; convert it, or pass data_range"),
    "ranges": ((U8, U8.astype(np.uint16)), {}, r"found uint8 \(0..255\) and uint16 \(0..65535\)"),
    "data-range": ((U8, U8), {"data_range": 0.0}, "data_range: must be positive"),
}


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
@pytest.mark.parametrize(("images", "arguments", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_explained(metric, images, arguments, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        metric(*images, **{"crop_border": 0, **arguments})


WRONG_TYPES = {
    "a tensor": (
        {"img": torch.zeros(3, 16, 16)},
        "img: must be a numpy array, got Tensor; pass tensor.cpu().numpy(), in BGR order and [H, W, C]",
    ),
    "a tensor as ground truth": ({"img2": torch.zeros(16, 16, 3)}, "img2: must be a numpy array, got Tensor; pass"),
    "a list": ({"img": [[0, 1], [1, 0]]}, "img: must be a numpy array, got list"),
    "half a pixel": ({"crop_border": 1.5}, "crop_border: must be an integer, got 1.5"),
    "a whole float": ({"crop_border": 4.0}, "crop_border: must be an integer, got 4.0"),
    "a text": ({"crop_border": "4"}, "crop_border: must be an integer, got '4'"),
    "a switch": ({"crop_border": True}, "crop_border: must be an integer, got True"),
}


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
@pytest.mark.parametrize(("changes", "text"), WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_other_types_are_refused_with_the_rule(metric, changes, text: str) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(TypeError) as error:
        metric(**{"img": image, "img2": image, "crop_border": 0, **changes})
    assert str(error.value).startswith(text)


def test_a_border_of_numpy_is_a_number() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    assert calculate_psnr(image, image, np.int64(2)) == math.inf


def test_ssim_needs_a_whole_window() -> None:
    with pytest.raises(ValueError, match="at least 11x11 pixels after cropping, found 16x16 with crop_border 3"):
        calculate_ssim(U8, U8, 3)
    assert calculate_psnr(U8, U8, 3) == math.inf


def test_metric_from_options() -> None:
    image, other = noisy_pair((20, 20, 3))
    options = {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True, "better": "higher"}
    kept = dict(options)
    assert calculate_metric(image, other, options) == calculate_psnr(image, other, 2, test_y_channel=True)
    assert options == kept
    with pytest.raises(KeyError, match="did you mean 'calculate_psnr'"):
        calculate_metric(image, other, {"type": "calculate_psn", "crop_border": 0})
    with pytest.raises(TypeError, match="crop_boarder"):
        calculate_metric(image, other, {"type": "calculate_psnr", "crop_boarder": 0})


def test_metric_of_basicsr_from_options(basicsr_metrics: ModuleType) -> None:
    image, other = noisy_pair((20, 20, 3))
    options = {"type": "basicsr/calculate_psnr", "crop_border": 0}
    assert calculate_metric(image, other, options) == basicsr_metrics.calculate_psnr(image, other, 0)
