"""The distribution of recipes against the published values: every probability and every range, with a fixed seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mambair.data.degradations.compression import Compression
from mambair.data.degradations.kernels import GaussianBlur, SincBlur
from mambair.data.degradations.noise import Noise
from mambair.data.degradations.pipeline import Steps
from mambair.data.degradations.recipe import described, draw_recipe
from mambair.data.degradations.resize import Resize
from mambair.data.degradations.settings import DegradationSettings

COUNT = 4000
SIDE, SCALE = 40_000, 4  # so large that rounding a size changes no share
# a fair draw leaves these bounds once in ten million tests
SURPRISE = 1e-7


def drawn(**changes: Any) -> list[Steps]:
    settings = DegradationSettings.model_validate(changes)
    return [draw_recipe(settings, SIDE, SIDE, SCALE, np.random.default_rng([3, n])) for n in range(COUNT)]


@pytest.fixture(scope="module")
def published() -> list[Steps]:
    return drawn()


def assert_share(hits: int, count: int, probability: float) -> None:
    """Fail where a binomial distribution gives this number of hits or a rarer one with a chance below SURPRISE."""
    if probability in (0, 1):
        assert hits == count * probability, f"{hits} of {count}, where {probability} is right"
        return
    log_choose = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)]
    k = np.arange(count + 1)
    chances = np.exp(np.array(log_choose) + k * math.log(probability) + (count - k) * math.log1p(-probability))
    tail = min(chances[: hits + 1].sum(), chances[hits:].sum())
    assert tail > SURPRISE, f"{hits} of {count}, where {probability} is right"


def test_the_bounds_would_notice() -> None:
    assert_share(1600, COUNT, 0.4)
    with pytest.raises(AssertionError):
        assert_share(1800, COUNT, 0.4)
    with pytest.raises(AssertionError):
        assert_share(1, COUNT, 0.0)


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """All values within the range, and evenly: the share below each tenth is right."""
    assert low <= min(values) <= max(values) <= high
    for tenth in range(1, 10):
        assert_share(sum(value < low + (high - low) * tenth / 10 for value in values), len(values), tenth / 10)


# slots of the steps of order two before the last three
BLUR, RESIZE, NOISE, COMPRESSION, BLUR2, RESIZE2, NOISE2 = range(7)


def of_kind(recipes: list[Steps], slot: int, kind: type) -> list[Any]:
    return [recipe[slot] for recipe in recipes if isinstance(recipe[slot], kind)]


def last(recipes: list[Steps], kind: type) -> list[Any]:
    return [step for recipe in recipes for step in recipe[7:] if isinstance(step, kind)]


@pytest.mark.parametrize(("slot", "share", "sigma"), [(BLUR, 1.0, 3.0), (BLUR2, 0.8, 1.5)])
def test_blur(published: list[Steps], slot: int, share: float, sigma: float) -> None:
    gaussian, sinc = of_kind(published, slot, GaussianBlur), of_kind(published, slot, SincBlur)
    assert_share(len(gaussian) + len(sinc), COUNT, share)
    assert_share(len(sinc), len(gaussian) + len(sinc), 0.1)
    weights = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03}
    weights |= {"plateau_iso": 0.12, "plateau_aniso": 0.03}
    for kind, weight in weights.items():
        steps = [step for step in gaussian if step.kind == kind]
        assert_share(len(steps), len(gaussian), weight)
    for size in range(7, 22, 2):
        assert_share(sum(step.size == size for step in gaussian + sinc), len(gaussian + sinc), 1 / 8)
    assert_uniform([step.sigma_x for step in gaussian], 0.2, sigma)
    turned = [step for step in gaussian if step.kind.endswith("aniso")]
    assert_uniform([step.sigma_y for step in turned], 0.2, sigma)
    assert_uniform([step.angle for step in turned], -math.pi, math.pi)
    assert all(step.sigma_x == step.sigma_y for step in gaussian if not step.kind.endswith("aniso"))
    for kind, low, high in [("generalized", 0.5, 4.0), ("plateau", 1.0, 2.0)]:
        shapes = [step.beta for step in gaussian if step.kind.startswith(kind)]
        small = [shape for shape in shapes if shape <= 1]
        assert_share(len(small), len(shapes), 0.5)
        assert min(shapes) >= low
        assert_uniform([shape for shape in shapes if shape > 1], 1.0, high)
    assert_uniform([step.cutoff for step in sinc if step.size < 13], math.pi / 3, math.pi)
    assert_uniform([step.cutoff for step in sinc if step.size >= 13], math.pi / 5, math.pi)


@pytest.mark.parametrize(
    ("slot", "base", "weights", "low", "high"),
    [(RESIZE, SIDE, (0.2, 0.7, 0.1), 0.15, 1.5), (RESIZE2, SIDE // SCALE, (0.3, 0.4, 0.3), 0.3, 1.2)],
)
def test_resizing(
    published: list[Steps], slot: int, base: int, weights: tuple[float, ...], low: float, high: float
) -> None:
    factors = [recipe[slot].height / base if isinstance(recipe[slot], Resize) else 1.0 for recipe in published]
    for wanted, weight in zip((factor_above, factor_below, factor_equal), weights, strict=True):
        assert_share(sum(wanted(factor) for factor in factors), COUNT, weight)
    # sizes are rounded down to whole pixels
    assert_uniform([factor for factor in factors if factor > 1], 1.0, high)
    assert_uniform([factor + 1 / base for factor in factors if factor < 1], low, 1.0 + 1 / base)
    steps = of_kind(published, slot, Resize)
    for mode in ("area", "bilinear", "bicubic"):
        assert_share(sum(step.mode == mode for step in steps), len(steps), 1 / 3)


factor_above: Callable[[float], bool] = (1.0).__lt__
factor_below: Callable[[float], bool] = (1.0).__gt__
factor_equal: Callable[[float], bool] = (1.0).__eq__


@pytest.mark.parametrize(("slot", "sigma", "scale"), [(NOISE, 30.0, 3.0), (NOISE2, 25.0, 2.5)])
def test_noise(published: list[Steps], slot: int, sigma: float, scale: float) -> None:
    noises = of_kind(published, slot, Noise)
    assert len(noises) == COUNT
    gaussian = [noise for noise in noises if noise.kind == "gaussian"]
    assert_share(len(gaussian), COUNT, 0.5)
    assert_share(sum(noise.is_gray for noise in noises), COUNT, 0.4)
    assert_uniform([noise.amount for noise in gaussian], 1.0, sigma)
    assert_uniform([noise.amount for noise in noises if noise.kind == "poisson"], 0.05, scale)
    assert len({noise.seed for noise in noises}) == COUNT


def test_compression(published: list[Steps]) -> None:
    for steps in (of_kind(published, COMPRESSION, Compression), last(published, Compression)):
        assert len(steps) == COUNT
        assert {(step.codec, step.subsampling) for step in steps} == {("jpeg", "4:2:0")}
        # whole numbers from 30 to 95, each as likely
        assert_uniform([step.quality + 0.5 for step in steps], 30, 96)


def test_the_end(published: list[Steps]) -> None:
    sincs = last(published, SincBlur)
    assert_share(len(sincs), COUNT, 0.8)
    assert_uniform([step.cutoff for step in sincs], math.pi / 3, math.pi)
    for size in range(7, 22, 2):
        assert_share(sum(step.size == size for step in sincs), len(sincs), 1 / 8)
    assert_share(sum(isinstance(recipe[7], Compression) for recipe in published), COUNT, 0.5)
    resizes = last(published, Resize)
    assert {(step.height, step.width) for step in resizes} == {(SIDE // SCALE, SIDE // SCALE)}
    assert len(resizes) == COUNT
    for recipe in published:
        resized = [index for index, step in enumerate(recipe) if isinstance(step, Resize)][-1]
        assert not any(isinstance(step, SincBlur) for step in recipe[7:resized]), "the filter follows the last resizing"


def test_the_photo_preset() -> None:
    recipes = drawn(preset="photo")
    assert {len(recipe) for recipe in recipes} == {6}
    blurs, noises = of_kind(recipes, 0, GaussianBlur), of_kind(recipes, 3, Noise)
    compressions = [step for recipe in recipes for step in recipe if isinstance(step, Compression)]
    assert not [step for recipe in recipes for step in recipe if isinstance(step, SincBlur)]
    for steps in (blurs, noises, compressions):
        assert_share(len(steps), COUNT, 0.7)
    assert_uniform([step.sigma_x for step in blurs], 0.0, 1.2)
    assert_uniform([step.amount for step in noises if step.kind == "gaussian"], 0.0, 10.0)
    assert_uniform([step.quality + 0.5 for step in compressions], 40, 96)
    resizes = [[step for step in recipe if isinstance(step, Resize)] for recipe in recipes]
    assert all(len(steps) == 1 and steps[0].height == SIDE // SCALE and steps[0].antialias for steps in resizes)
    only_resized = sum(sum(step is not None for step in recipe) == 1 for recipe in recipes)
    assert_share(only_resized, COUNT, 0.3**3)


def test_keys_go_before_the_preset() -> None:
    settings = DegradationSettings.model_validate({"preset": "photo", "noise_range": [2.0, 3.0]})
    assert (settings.noise_range, settings.jpeg_range, settings.order) == ([2.0, 3.0], [40, 95], 1)
    again = DegradationSettings.model_validate(settings.model_dump())
    assert again == settings


def test_other_codecs_and_modes() -> None:
    recipes = drawn(
        codec_prob=[2, 1, 1],
        codec_prob2=[0, 1, 0],
        webp_range2=[70, 72],
        subsampling_prob=[0, 1, 3],
        lq_resize_mode="area",
        resize_mode_list=["bicubic"],
        compress_prob=0.25,
        noise_prob2=0.1,
    )
    first, second = of_kind(recipes, COMPRESSION, Compression), last(recipes, Compression)
    assert_share(len(first), COUNT, 0.25)
    assert_share(sum(step.codec == "jpeg" for step in first), len(first), 0.5)
    assert_share(sum(step.subsampling == "4:2:2" for step in first), len(first), 0.25)
    assert {step.codec for step in second} == {"webp"}
    assert {step.quality for step in second} == {70, 71, 72}
    assert {step.mode for step in last(recipes, Resize)} == {"area"}
    assert {step.mode for step in of_kind(recipes, RESIZE2, Resize)} == {"bicubic"}
    assert_share(len(of_kind(recipes, NOISE2, Noise)), COUNT, 0.1)


def test_a_recipe_is_a_function_of_the_generator() -> None:
    settings = DegradationSettings.model_validate({})
    first, second = (draw_recipe(settings, 400, 400, 4, np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert first != draw_recipe(settings, 400, 400, 4, np.random.default_rng(8))
    assert all(dataclasses.is_dataclass(step) for step in first if step is not None)


def test_tiny_images_keep_a_pixel() -> None:
    settings = DegradationSettings.model_validate({})
    for number in range(200):
        for step in draw_recipe(settings, 4, 5, 4, np.random.default_rng(number)):
            assert not isinstance(step, Resize) or min(step.height, step.width) >= 1


def test_a_recipe_as_text() -> None:
    recipe = (
        GaussianBlur("generalized_aniso", 9, 1.0, 2.5, math.pi / 2, 0.75),
        None,
        Resize("area", 20, 30),
        Noise("poisson", 0.5, True, 1),
        SincBlur(7, math.pi / 2),
        Compression("jpeg", 40, "4:2:0"),
        Compression("webp", 50, "4:2:0"),
    )
    assert described(recipe) == (
        "blur generalized_aniso 9x9 sigma 1.00, 2.50 angle 90 beta 0.75; resize area to 20x30; "
        "poisson noise scale 0.50 gray; sinc 7x7 cutoff 0.50 pi; jpeg quality 40 4:2:0; webp quality 50"
    )
    assert described((None, None)) == "clean"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel_prob": [1.0]}, "kernel_prob: expected one weight for each of kernel_list, got 1"),
        ({"kernel_prob": [0.0] * 6}, "must be weights >= 0 that are not all 0"),
        (
            {"resize_prob": [0.5, 0.5]},
            r"resize_prob: expected the weights of \[enlarge, reduce, keep\], got \[0.5, 0.5\]",
        ),
        ({"resize_range": [1.1, 1.5]}, r"resize_range: expected 0 < low <= 1 <= high, got \[1.1, 1.5\]"),
        ({"noise_range": [30.0, 1.0]}, r"must be \[low, high\] with 0 <= low <= high, got \[30.0, 1.0\]"),
        ({"jpeg_range": [0, 95]}, r"must be \[low, high\] with 1 <= low <= high <= 100, got \[0, 95\]"),
        ({"blur_kernel_size": 20}, "must be an odd number from 7, got 20"),
        ({"betap_range": [0.0, 2.0]}, r"betap_range: expected low > 0, got \[0.0, 2.0\]"),
        ({"final_sinc_prob": 1.2}, "less than or equal to 1"),
        ({"preset": "mild"}, "'realesrgan' or 'photo'"),
        ({"resize_mode_list": []}, "at least 1 item"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        DegradationSettings.model_validate(changes)


def test_avif_needs_a_pillow_that_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    DegradationSettings.model_validate({})
    with pytest.raises(ValidationError, match="codec_prob: this installation of Pillow cannot write AVIF"):
        DegradationSettings.model_validate({"codec_prob": [0.5, 0.0, 0.5]})
