"""A quick look at real images with synthetic damage: what is seen, and the task that follows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mambair.images.files import EncodedImage, ImageFileError
from mambair.images.jpeg_quality import jpeg_quality
from mambair.inference.quick_look import Look, blockiness, look_at, noise_level, task_for

IMAGES = ("Set5/HR/bird.png", "Set5/HR/head.png", "McMaster/1.tif", "Set12/04.png", "classic5/baboon.bmp")


def encoded(picture: Image.Image, format: str, **options: int) -> EncodedImage:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return EncodedImage(Path(f"picture.{format.lower()}"), stream.getvalue())


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    values = np.asarray(picture) + np.random.default_rng(0).normal(0, sigma, np.asarray(picture).shape)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def cut(picture: Image.Image, quality: int) -> Image.Image:
    """Compressed, and without its first columns and rows, so that its blocks lie elsewhere."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).crop((3, 5, *picture.size))


Damage = Callable[[Image.Image], EncodedImage]
# damage -> (how it is made, noisy, compressed, quality in the file, least and most noise that may be estimated)
DAMAGES: dict[str, tuple[Damage, bool, bool, int | None, tuple[float, float]]] = {
    "none": (lambda x: encoded(x, "PNG"), False, False, None, (0, 10)),
    "noise 5": (lambda x: encoded(noisy(x, 5), "PNG"), False, False, None, (5, 11)),
    "noise 15": (lambda x: encoded(noisy(x, 15), "PNG"), True, False, None, (14.5, 18)),
    "noise 25": (lambda x: encoded(noisy(x, 25), "PNG"), True, False, None, (24, 27)),
    # clipping takes of strong noise what lies beyond black and white
    "noise 50": (lambda x: encoded(noisy(x, 50), "PNG"), True, False, None, (40, 50)),
    "JPEG 10": (lambda x: encoded(x, "JPEG", quality=10), False, True, 10, (0, 8)),
    "JPEG 40": (lambda x: encoded(x, "JPEG", quality=40), False, True, 40, (0, 10)),
    "JPEG 79": (lambda x: encoded(x, "JPEG", quality=79), False, True, 79, (0, 10)),
    "JPEG 90": (lambda x: encoded(x, "JPEG", quality=90), False, False, 90, (0, 10)),
    "JPEG 10, cut, PNG": (lambda x: encoded(cut(x, 10), "PNG"), False, True, None, (0, 8)),
    "noise 25, JPEG 90": (lambda x: encoded(noisy(x, 25), "JPEG", quality=90), True, False, 90, (15, 28)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", IMAGES)
def test_what_is_seen(name: str, damage: str, development_data: Path) -> None:
    make, is_noisy, is_compressed, quality, (least, most) = DAMAGES[damage]
    with Image.open(development_data / "data" / "test" / name) as picture:
        look = look_at(make(picture.convert("L" if picture.mode == "L" else "RGB")))
    assert (look.is_noisy, look.is_compressed, look.jpeg_quality) == (is_noisy, is_compressed, quality), look
    assert least <= look.noise <= most


@pytest.mark.parametrize("quality", range(1, 101))
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    assert jpeg_quality(stream.getvalue()) == quality


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_jpeg_has_no_quality(data: bytes) -> None:
    assert jpeg_quality(data) is None


@pytest.mark.parametrize("sigma", [0.0, 2.0, 10.0, 40.0])
def test_the_noise_of_a_plain_picture(sigma: float) -> None:
    grey = 0.5 + np.random.default_rng(0).normal(0, sigma / 255, (300, 300))
    # of 20,000 samples of 49 numbers: the smallest eigenvalues are a few percent off
    assert noise_level(grey) * 255 == pytest.approx(sigma, rel=0.03, abs=1e-6)


def test_pictures_of_a_screen_have_no_noise() -> None:
    picture = Image.new("RGB", (400, 300), "white")
    for row in range(10):
        ImageDraw.Draw(picture).text((20, 20 + 25 * row), "The quick brown fox jumps over the lazy dog", "black")
    look = look_at(encoded(picture, "PNG"))
    assert (look.noise, look.is_noisy, task_for(look, ("sr", "denoise"))) == (0.0, False, "sr")
    # noise of which half is clipped at black is still seen
    dark = np.random.default_rng(0).normal(0.0, 0.1, (200, 200)).clip(0, 1)
    assert noise_level((dark * 255).round() / 255) * 255 > 12


def test_blocks_are_found_wherever_the_grid_lies() -> None:
    tiles = np.random.default_rng(0).random((20, 20)).repeat(8, axis=0).repeat(8, axis=1)
    tiles += np.random.default_rng(1).normal(0, 0.01, tiles.shape)
    for place in range(8):
        assert blockiness(tiles[place:, place:]) > 5
    assert blockiness(np.random.default_rng(2).random((160, 160))) < 1.2


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (7, 7), (300, 3), (23, 24)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "F"])
def test_small_and_other_pictures(mode: str, size: tuple[int, int]) -> None:
    look = look_at(encoded(Image.new(mode, size), "TIFF" if mode == "F" else "PNG"))
    assert (look.width, look.height, look.blockiness, look.noise) == (*size, 1.0, 0.0)


def test_what_cannot_be_decoded_is_an_error() -> None:
    with pytest.raises(ImageFileError, match=r"x\.png: is not an image of a known format"):
        look_at(EncodedImage(Path("x.png"), b"no image"))


@pytest.mark.parametrize(
    ("look", "tasks", "task"),
    [
        (Look(9, 9, 95, 1.0, 2.0), ("sr", "photo", "denoise", "jpeg"), "sr"),
        (Look(9, 9, None, 1.0, 20.0), ("sr", "photo", "denoise", "jpeg"), "photo"),
        (Look(9, 9, None, 1.0, 20.0), ("sr", "denoise", "jpeg"), "denoise"),
        (Look(9, 9, 30, 2.0, 20.0), ("sr", "denoise", "jpeg"), "denoise"),
        (Look(9, 9, 30, 2.0, 2.0), ("sr", "denoise", "jpeg"), "jpeg"),
        (Look(9, 9, None, 2.0, 2.0), ("sr", "denoise", "photo"), "photo"),
        (Look(9, 9, 30, 2.0, 2.0), ("sr", "denoise"), "sr"),
    ],
)
def test_the_task(look: Look, tasks: tuple[str, ...], task: str) -> None:
    assert task_for(look, tasks) == task


def test_in_words() -> None:
    damaged = "600 x 400 pixels, JPEG of quality 75, blocks of 8 x 8, noise about 3 of 255"
    assert str(Look(400, 600, 75, 1.5, 3.2)) == damaged
    assert str(Look(400, 600, None, 1.0, 0.0)) == "600 x 400 pixels, noise about 0 of 255"
