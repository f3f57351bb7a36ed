"""NIQE: fits of known distributions, the written formulas, conventions, and the order of damaged images."""

from __future__ import annotations

import importlib
import io
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageFilter
from safetensors import safe_open

from mambair.metrics import calculate_metric, calculate_niqe, needs_reference, niqe
from mambair.metrics.image_pairs import luma
from mambair.registry import basicsr_installed, import_basicsr

SAMPLES = 400_000


def generalised_gaussian(shape: float, left: float, right: float, seed: int = 0) -> np.ndarray:
    """Samples of density ~ exp(-(|x| / scale)^shape), with one scale on each side of 0, in their proportion."""
    rng = np.random.default_rng(seed)
    size = rng.gamma(1 / shape, size=SAMPLES) ** (1 / shape)
    is_left = rng.random(SAMPLES) < left / (left + right)
    return np.where(is_left, -left * size, right * size)[None]


@pytest.mark.parametrize(
    ("shape", "left", "right"),
    [(2.0, 1.0, 1.0), (1.0, 2.0, 2.0), (0.5, 1.0, 1.0), (4.0, 3.0, 3.0), (1.5, 1.0, 2.0), (0.8, 3.0, 1.0)],
)
def test_the_fit_finds_the_parameters(shape: float, left: float, right: float) -> None:
    (found,) = niqe.asymmetric_fit(generalised_gaussian(shape, left, right))
    mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
    expected = [shape, (left + right) / 2, mean, left, right]
    # 400,000 samples know moments to a few thousandths; the heavy tails of shape 0.5 to a percent
    assert found == pytest.approx(expected, rel=0.03, abs=0.03)


def test_many_fits_at_once_are_those_of_each() -> None:
    both = np.concatenate([generalised_gaussian(2, 1, 1), generalised_gaussian(1, 1, 2)])
    each = [niqe.asymmetric_fit(samples[None])[0] for samples in both]
    assert np.array_equal(niqe.asymmetric_fit(both), each)


def test_local_statistics_by_formula() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (20, 23))
    taps = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weights = np.outer(taps, taps) / taps.sum() ** 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(plane, 3, mode="edge"), (7, 7))
    mean = (windows * weights).sum((2, 3))
    deviation = np.sqrt((windows**2 * weights).sum((2, 3)) - mean**2)
    found, sharpness = niqe.normalise(plane)
    assert sharpness == pytest.approx(deviation, rel=1e-9)
    assert found == pytest.approx((plane - mean) / (deviation + 1), rel=1e-9)


def test_distance_by_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(50, 36)), rng.normal(1.0, 2.0, size=(80, 36))
    gap = first.mean(0) - second.mean(0)
    pooled = (np.cov(first.T) + np.cov(second.T)) / 2
    expected = math.sqrt(gap @ np.linalg.solve(pooled, gap))
    assert niqe.distance(niqe.gaussian_of(first), niqe.gaussian_of(second)) == pytest.approx(expected, rel=1e-9)
    assert niqe.distance(niqe.gaussian_of(first), niqe.gaussian_of(first)) == 0


def test_blocks_are_in_the_order_of_rows() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (192, 288))
    features, sharpness = niqe.block_features(plane)
    assert features.shape == (6, 36) and sharpness.shape == (6,)
    plane[96:, 96:192] = 7  # the fifth block; its border still sees its neighbours
    assert niqe.block_features(plane)[1].argmin() == 4


def photograph() -> np.ndarray:
    """Smooth noise, [200, 230, 3]: all that the conventions need."""
    rng = np.random.default_rng(2)
    picture = Image.fromarray(rng.integers(0, 256, (200, 230, 3), dtype=np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1)))


def test_conventions() -> None:
    image = photograph()
    value = calculate_niqe(image, 4)
    assert calculate_niqe(image[4:-4, 4:-4], 0) == value
    assert calculate_niqe(image.transpose(2, 0, 1), 4, input_order="CHW") == value
    assert calculate_niqe(image.astype(np.uint16) * 257, 4) == pytest.approx(value, rel=1e-6)  # luma in float64
    assert calculate_niqe(image.astype(np.float32), 4) == value
    assert calculate_metric(image, None, {"type": "calculate_niqe", "crop_border": 4, "better": "lower"}) == value
    grey = np.rint(image @ niqe.GREY_OF_BGR).astype(np.uint8)
    assert calculate_niqe(image, 0, convert_to="gray") == calculate_niqe(grey, 0) != calculate_niqe(image, 0)
    black = calculate_niqe(np.zeros((192, 192, 3), np.uint8), 0)
    assert math.isfinite(black), "a black image is bad, not a fault"
    assert calculate_niqe.better == "lower"


def test_which_metrics_need_a_reference() -> None:
    assert not needs_reference({"type": "calculate_niqe"})
    assert needs_reference({"type": "calculate_psnr"}) and needs_reference({"type": "calculate_lpips"})
    with pytest.raises(ValueError, match="calculate_psnr needs the ground truth; set dataroot_gt"):
        calculate_metric(photograph(), None, {"type": "calculate_psnr", "crop_border": 0})


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((95, 300, 3), {}, "img: must keep at least 96x96 pixels after cropping, found 95x300 with crop_border 0"),
        ((96, 191, 3), {}, "NIQE needs two blocks of 96x96 pixels, found 96x191 pixels after cropping"),
        ((200, 200, 3), {"crop_border": 5}, "NIQE needs two blocks of 96x96 pixels, found 190x190"),
        ((200, 200, 3), {"convert_to": "Y"}, "convert_to: must be 'y' or 'gray', found 'Y'"),
    ],
    ids=["side", "one block", "cropped", "convert_to"],
)
def test_refusals(shape: tuple[int, ...], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        calculate_niqe(np.zeros(shape, np.uint8), **{"crop_border": 0, **arguments})  # type: ignore[arg-type]


def test_the_parameters_are_small_and_sound() -> None:
    assert niqe.PARAMETERS.stat().st_size < 12_000
    with safe_open(niqe.PARAMETERS, "numpy") as file:
        mean, covariance, about = file.get_tensor("mean"), file.get_tensor("covariance"), file.metadata()
    assert mean.shape == (36,) and covariance.shape == (36, 36) and mean.dtype == covariance.dtype == np.float64
    assert np.array_equal(covariance, covariance.T) and np.linalg.eigvalsh(covariance).min() > 0
    assert about["images"] == "354" and int(about["blocks"]) > 36 * 36


DAMAGES = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "noisy": lambda picture: noisy(picture),
    "JPEG": lambda picture: compressed(picture),
}


def noisy(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 25, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=10)
    return Image.open(buffer)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_photographs_are_worse(damage: str, development_data: Path) -> None:
    """McMaster, none of whose images took part in the fit."""
    for path in sorted((development_data / "data/test/McMaster").iterdir()):
        picture = Image.open(path).convert("RGB")
        clean, damaged = (np.asarray(each)[:, :, ::-1] for each in (picture, DAMAGES[damage](picture)))
        assert calculate_niqe(damaged, 0) > calculate_niqe(clean, 0) + 0.5, path.name


def test_fitting(tmp_path: Path, load_script, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("fit_niqe")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "line_c"):
        half = rng.integers(0, 256, (192, 96, 3), dtype=np.uint8)  # sharp, beside a smooth half
        Image.fromarray(np.concatenate([half, half // 8], axis=1)).save(tmp_path / f"{name}.png")
    output = tmp_path / "niqe.safetensors"
    script.main([str(tmp_path), "--leave-out", "line_*", "--output", str(output), "--about", "noise"])
    assert "4 blocks of 2 images" in capsys.readouterr().out
    with safe_open(output, "numpy") as file:
        assert file.metadata() == {"images": "2", "blocks": "4", "about": "noise"}
        images = [np.asarray(Image.open(tmp_path / f"{name}.png")).astype(float) for name in ("a", "b")]
        luma = [np.round(16 + image @ np.array([65.481, 128.553, 24.966]) / 255) for image in images]
        sharp = np.concatenate([niqe.block_features(plane)[0][[0, 2]] for plane in luma])
        assert file.get_tensor("mean") == pytest.approx(sharp.mean(0), rel=1e-3)  # luma of float32 beside float64


def test_equal_to_basicsr(repository: Path) -> None:
    """With our parameters in its formula; it rounds shapes to 0.001, which shows in the third digit."""
    theirs = basicsr_niqe()
    weights = np.outer(niqe.WINDOW, niqe.WINDOW) / niqe.WINDOW.sum() ** 2
    with safe_open(niqe.PARAMETERS, "numpy") as file:
        mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
    for path in sorted((repository / "datasets/example/val_gt").iterdir())[:2]:
        image = np.asarray(Image.open(path).convert("RGB").resize((288, 192)))[:, :, ::-1]
        plane = np.round(luma(image.transpose(2, 0, 1), 255).astype(np.float64))
        expected = theirs.niqe(plane, mean[None], covariance, weights)
        assert calculate_niqe(image, 0) == pytest.approx(expected, rel=5e-3), path.name


def basicsr_niqe() -> ModuleType:
    if not basicsr_installed():
        pytest.skip("basicsr is not installed")
    import_basicsr()
    return importlib.import_module("basicsr.metrics.niqe")
