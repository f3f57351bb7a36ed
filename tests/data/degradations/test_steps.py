"""Single degradations: exact values, ranges, any size, and each image of a batch as if it were alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mambair.data.degradations.compression import (
    CODECS,
    SUBSAMPLINGS,
    Compression,
    compress,
    compress_on_device,
    compressed,
    jpeg_arithmetic,
    quantisation_tables,
)
from mambair.data.degradations.kernels import KERNEL_KINDS, GaussianBlur, SincBlur, blur, convolved
from mambair.data.degradations.noise import Noise, add_noise
from mambair.data.degradations.pipeline import degrade
from mambair.data.degradations.resize import RESIZE_MODES, Resize, resize
from mambair.data.degradations.sharpening import sharpened
from mambair.images.files import read_image

ODD_SIZES = [(1, 1), (1, 7), (3, 50), (37, 23)]


def noise_image(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photograph(request: pytest.FixtureRequest) -> Tensor:
    repository = request.getfixturevalue("repository")
    pixels = read_image(repository / "datasets" / "example" / "val_gt" / "chelsea.png").pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float()[..., :123, :155] / 255


# -- blur


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("size", [7, 13, 21])
def test_a_kernel_sums_to_one_and_is_symmetric(kind: str, size: int) -> None:
    for sigma_x, sigma_y, beta in [(0.0, 0.0, 1.0), (0.2, 3.0, 0.5), (3.0, 0.7, 4.0)]:
        kernel = GaussianBlur(kind, size, sigma_x, sigma_y, 0.6, beta).kernel()
        assert kernel.shape == (size, size)
        assert kernel.sum() == pytest.approx(1, abs=1e-12)
        assert kernel.min() >= 0
        assert np.allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-15)
    assert GaussianBlur(kind, size, 0.0, 0.0).kernel()[size // 2, size // 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("blur_step", "expected"),
    [
        # the ratio of the pixel 2 to the right to the centre, from the published formulas
        (GaussianBlur("iso", 7, 1.5, 1.5), math.exp(-(4 / 2.25) / 2)),
        (GaussianBlur("aniso", 7, 1.5, 0.5, math.pi / 2), math.exp(-(4 / 0.25) / 2)),
        (GaussianBlur("generalized_iso", 7, 1.5, 1.5, 0, 0.7), math.exp(-((4 / 2.25) ** 0.7) / 2)),
        (GaussianBlur("plateau_iso", 7, 1.5, 1.5, 0, 1.8), 1 / (1 + (4 / 2.25) ** 1.8)),
        # J1(2) = 0.5767248077568734, Abramowitz and Stegun, table 9.1
        (SincBlur(7, 1.0), 0.5767248077568734 / (2 * math.pi * 2) * 4 * math.pi),
    ],
    ids=str,
)
def test_a_kernel_follows_its_formula(blur_step: GaussianBlur | SincBlur, expected: float) -> None:
    kernel = blur_step.kernel()
    assert kernel[3, 5] / kernel[3, 3] == pytest.approx(expected, rel=1e-12)


def test_sigma_x_lies_along_the_angle() -> None:
    kernel = GaussianBlur("aniso", 21, 3.0, 0.5, math.pi / 4).kernel()
    assert kernel[14, 14] > 1e3 * kernel[14, 6]  # rows grow downwards: the angle turns x towards y


@pytest.mark.parametrize("cutoff", [math.pi / 5, math.pi / 3, math.pi])
def test_a_sinc_kernel_sums_to_one(cutoff: float) -> None:
    for size in range(7, 23, 2):
        assert SincBlur(size, cutoff).kernel().sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_blurring_is_a_convolution_over_reflected_borders(size: tuple[int, int]) -> None:
    image, step = noise_image(*size), GaussianBlur("aniso", 9, 2.0, 0.8, 0.4)
    padded = np.pad(image[0].numpy(), [(0, 0), (4, 4), (4, 4)], mode="reflect").astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(1, 2))
    expected = np.einsum("chwij,ij->chw", windows, step.kernel())
    # float32 FFT of values up to 1
    np.testing.assert_allclose(blur(image, [step])[0].numpy(), expected, rtol=0, atol=2e-6)


def test_a_constant_stays() -> None:
    image = torch.full((1, 3, 9, 30), 0.7)
    assert blur(image, [SincBlur(21, 1.0)]).sub(0.7).abs().max() < 1e-6
    assert sharpened(image).sub(0.7).abs().max() < 1e-6


# -- sharpening


def test_sharpening_follows_its_definition(photograph: Tensor) -> None:
    sigma = 8.0  # OpenCV's rule for 51 taps
    kernel = torch.from_numpy(GaussianBlur("iso", 51, sigma, sigma).kernel()).float()[None]
    residual = photograph - convolved(photograph, kernel)
    mask = convolved((residual.abs() * 255 > 10).float(), kernel)
    expected = mask * (photograph + residual / 2).clamp(0, 1) + (1 - mask) * photograph
    result = sharpened(photograph)
    assert torch.allclose(result, expected, rtol=0, atol=1e-5)
    assert 0 <= result.min() <= result.max() <= 1
    assert result.std() > photograph.std() * 1.02


# -- noise


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_gray", [True, False])
@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_noise_stays_in_range(kind: str, is_gray: bool, channels: int, size: tuple[int, int]) -> None:
    image = noise_image(*size, channels)
    noisy = add_noise(image, [Noise(kind, 30.0, is_gray, 5)])
    assert noisy.shape == image.shape
    assert 0 <= noisy.min() <= noisy.max() <= 1
    assert torch.equal(noisy, add_noise(image, [Noise(kind, 30.0, is_gray, 5)]))
    clean = add_noise(image, [Noise(kind, 0.0, is_gray, 5)])
    assert torch.equal(clean, image)


def test_the_strength_of_gaussian_noise() -> None:
    noisy = add_noise(torch.full((1, 3, 200, 200), 0.5), [Noise("gaussian", 10.0, False, 1)])
    # 120,000 draws: the standard error of a standard deviation is sigma / sqrt(2 n), five of them
    assert noisy.std().item() * 255 == pytest.approx(10, abs=5 * 10 / math.sqrt(240_000))


def test_the_strength_of_poisson_noise() -> None:
    image = torch.arange(200).repeat(1, 3, 200, 1) / 255  # 200 grey levels: 256 photons for white
    noise = add_noise(image, [Noise("poisson", 0.5, False, 1)]) - image
    variance = noise[..., 100:].square().mean().item()
    expected = 0.25 * image[..., 100:].mean().item() / 256
    assert variance == pytest.approx(expected, rel=0.05)  # 60,000 draws: standard error 0.6 %


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_gray_noise_is_the_same_on_all_channels(kind: str) -> None:
    image = 0.4 + torch.linspace(0, 0.2, 40).view(1, 1, 1, 40) * torch.tensor([0.8, 0.9, 1]).view(1, 3, 1, 1)
    image = image.expand(1, 3, 40, 40)
    for is_gray in (True, False):
        noise = add_noise(image, [Noise(kind, 0.5, is_gray, 3)]) - image
        assert bool((noise - noise[:, :1]).abs().max() < 1e-6) is is_gray
        assert noise.std() > 1e-3


# -- resizing


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_resizing_gives_the_size_asked_for(mode: str, antialias: bool, size: tuple[int, int]) -> None:
    for height, width in [(1, 1), (5, 9), (41, 40)]:
        result = resize(torch.full((1, 3, *size), 0.25), Resize(mode, height, width, antialias))
        assert result.shape == (1, 3, height, width)
        assert result.sub(0.25).abs().max() < 1e-6


def test_area_is_the_mean_and_antialiasing_counts_all_pixels() -> None:
    image = noise_image(40, 40)
    mean = image.view(1, 3, 10, 4, 10, 4).mean((3, 5))
    assert torch.allclose(resize(image, Resize("area", 10, 10)), mean, atol=1e-6)
    aliased, smooth = (resize(image, Resize("bilinear", 10, 10, flag)) for flag in (False, True))
    assert aliased.std() > 1.5 * smooth.std()


# -- compression


def test_quality_50_has_the_tables_of_the_standard() -> None:
    brightness, colour = quantisation_tables(50)
    assert brightness[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert colour[:, 3].tolist() == [47, 66, 99, 99, 99, 99, 99, 99]
    assert quantisation_tables(100).max() == quantisation_tables(100).min() == 1
    assert quantisation_tables(10)[0, 0, 0] == 80
    assert quantisation_tables(1).max() == 255


@pytest.mark.parametrize("quality", [10, 35, 50, 80, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_tables_are_those_of_pillow(quality: int, channels: int) -> None:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("L" if channels == 1 else "RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    theirs = Image.open(stream).quantization
    for number, table in enumerate(quantisation_tables(quality)[: 1 if channels == 1 else 2]):
        assert theirs[number] == table.flatten().tolist()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_by_arithmetic_is_close_to_files(photograph: Tensor, channels: int, subsampling: str) -> None:
    image = photograph[:, :channels]
    for quality in (20, 50, 90):
        ours = jpeg_arithmetic(image, [quality], subsampling)
        files = compress(image, [Compression("jpeg", quality, subsampling)])
        difference = (ours - files).abs() * 255
        # libjpeg's transforms are of whole numbers, so a coefficient near the middle of two steps may go to the other
        # one; the compression itself changes 2 to 7 grey levels
        assert difference.mean() < (0.3 if channels == 1 else 0.8)
        assert (difference > 3.5).float().mean() < 0.04


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_compression_of_any_size(codec: str, channels: int, size: tuple[int, int]) -> None:
    image = noise_image(*size, channels) * 1.4 - 0.2  # out of range, as after a sinc filter
    for subsampling in SUBSAMPLINGS:
        for function in (compress, compress_on_device):
            result = function(image, [Compression(codec, 60, subsampling)])
            assert result.shape == image.shape
            assert 0 <= result.min() <= result.max() <= 1
            levels = result * 255
            assert (levels - levels.round()).abs().max() < 1e-4


def test_a_batch_of_several_codecs(photograph: Tensor) -> None:
    steps = [Compression(codec, 50, "4:2:0") for codec in ("jpeg", "webp", "jpeg", "avif")]
    batch = compress_on_device(photograph.repeat(4, 1, 1, 1), steps)
    for image, step in zip(batch, steps, strict=True):
        assert torch.equal(image[None], compress_on_device(photograph, [step]))
    assert torch.equal(batch[1:2], compress(photograph, [steps[1]]))


def test_subsampling_and_quality_matter(photograph: Tensor) -> None:
    pixels = (photograph[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    errors = {
        (quality, subsampling): np.abs(compressed(pixels, quality, subsampling).astype(float) - pixels).mean()
        for quality in (20, 90)
        for subsampling in SUBSAMPLINGS
    }
    for quality in (20, 90):
        assert errors[quality, "4:4:4"] < errors[quality, "4:2:2"] < errors[quality, "4:2:0"]
    assert errors[90, "4:2:0"] < errors[20, "4:4:4"]


# -- all together


STEPS = [
    (GaussianBlur("iso", 9, 1.0, 1.0), Resize("area", 20, 31), Noise("gaussian", 9.0, True, 1), None),
    (None, Resize("bicubic", 50, 44), Noise("poisson", 0.7, False, 2), Compression("jpeg", 40, "4:2:0")),
    (SincBlur(21, 1.5), Resize("area", 20, 31), None, Compression("jpeg", 70, "4:2:0")),
    (Compression("jpeg", 30, "4:2:0"), SincBlur(7, 1.2), Noise("gaussian", 3.0, False, 4), Resize("bilinear", 9, 9)),
]
LAST = Resize("bicubic", 16, 12)


@pytest.mark.parametrize("files", [True, False])
def test_an_image_does_not_depend_on_its_batch(files: bool) -> None:
    images = torch.cat([noise_image(48, 52, seed=seed) for seed in range(4)])
    recipes = [(*steps, LAST) for steps in STEPS]
    batch = degrade(images, recipes, files=files)
    assert batch.shape == (4, 3, 16, 12)
    for image, recipe, result in zip(images, recipes, batch, strict=True):
        assert torch.equal(degrade(image[None], [recipe], files=files)[0], result)
    assert 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal((batch * 255).round() / 255, batch)


def test_recipes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"recipes: expected 2 of one length, got lengths \[1, 2\]"):
        degrade(torch.rand(2, 3, 8, 8), [(LAST,), (None, LAST)])
    with pytest.raises(ValueError, match=r"recipes: expected 2 of one length, got lengths \[1\]"):
        degrade(torch.rand(2, 3, 8, 8), [(LAST,)])
