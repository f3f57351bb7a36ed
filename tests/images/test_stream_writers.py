"""Files written strip by strip are what they would be at once, and their size does not matter to memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mambair.images import encode, stream_writers
from mambair.images.files import (
    DecodedImage,
    ImageFileError,
    ImageSpec,
    check_writable,
    open_strips,
    read_image,
    write_image,
)
from mambair.images.stream_writers import spec_of

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

SUFFIXES = {".png": ("uint8", "uint16"), ".tif": ("uint8", "uint16", "float32"), ".ppm": ("uint8", "uint16")}
CASES = [(suffix, dtype) for suffix, dtypes in SUFFIXES.items() for dtype in dtypes]


def rows_of(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).random((height, width, channels))
    return (values * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(dtype)


@pytest.mark.parametrize("cuts", [[], [1], [7, 8, 30], list(range(1, 61))], ids=["whole", "one", "three", "rows"])
@pytest.mark.parametrize(("suffix", "dtype"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_in_any_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dtype: str, channels: int, cuts: list[int]
) -> None:
    monkeypatch.setattr(stream_writers, "_CHUNK", 1000)  # several strips also of a small picture
    values = rows_of(61, 23, channels, dtype)
    with open_strips(tmp_path / f"a{suffix}", spec_of(DecodedImage(values))) as writer:
        for part in np.split(values, cuts):
            writer.write(part)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}").pixels, values)


@pytest.mark.parametrize(("suffix", "dtype"), CASES)
def test_rows_without_isal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dtype: str) -> None:
    monkeypatch.setattr(stream_writers, "isal_zlib", None)
    test_rows_in_any_portions(tmp_path, monkeypatch, suffix, dtype, 3, [7, 8, 30])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_tiff_beyond_four_gigabytes_is_a_big_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(stream_writers, "_LARGEST_TIFF", 1000)
    values = rows_of(40, 30, 3, dtype)
    spec = ImageSpec(40, 30, "RGB", dtype, icc_profile=SRGB, xmp=b"<x/>")
    with open_strips(tmp_path / "a.tif", spec) as writer:
        writer.write(values)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II\x2b\0"
    again = read_image(tmp_path / "a.tif")
    assert np.array_equal(again.pixels, values)
    assert (again.icc_profile, again.xmp) == (SRGB, b"<x/>")


def test_a_png_is_about_as_small_as_pillows(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :300]
    noise = np.random.default_rng(0).normal(0, 3, (200, 300, 3))
    smooth = 128 + 90 * np.sin(rows / 30 + columns / 20)[:, :, None]
    values = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    with open_strips(tmp_path / "ours.png", ImageSpec(200, 300, "RGB", "uint8")) as writer:
        writer.write(values)
    Image.fromarray(values).save(tmp_path / "pillows.png")
    assert (tmp_path / "ours.png").stat().st_size < 1.15 * (tmp_path / "pillows.png").stat().st_size


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    strip = np.tile(np.arange(250, dtype=np.uint8), (64, 40))[:, :, None].repeat(3, 2)[:, :2000]
    peaks = []
    for strips in (4, 40):
        tracemalloc.start()
        with open_strips(tmp_path / "a.png", ImageSpec(64 * strips, 2000, "RGB", "uint8")) as writer:
            for _ in range(strips):
                writer.write(strip)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2000, 2560)


def test_nothing_is_left_of_a_file_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_strips(tmp_path / "a.png", ImageSpec(9, 9, "L", "uint8")) as writer:
        writer.write(np.zeros((3, 9, 1), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


LIMITS = {".webp": 16383, ".jpg": 65500, ".avif": 32768}


@pytest.mark.parametrize(("suffix", "limit"), LIMITS.items())
def test_too_large_for_the_format_is_said_before_anything_is_done(tmp_path: Path, suffix: str, limit: int) -> None:
    expected = f"holds at most {limit} pixels a side, not {limit + 1} x 2; use PNG or TIFF"
    with (
        pytest.raises(ImageFileError, match=expected),
        open_strips(tmp_path / f"a{suffix}", ImageSpec(2, limit + 1, "RGB", "uint8")),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
@pytest.mark.parametrize(("suffix", "limit"), LIMITS.items())
def test_the_largest_that_a_format_holds_can_be_read_back(
    tmp_path: Path, suffix: str, limit: int, shape: tuple[int, int]
) -> None:
    write_image(tmp_path / f"a{suffix}", DecodedImage(np.full(limit * 3, 9, np.uint8).reshape(*shape, 3)))
    assert read_image(tmp_path / f"a{suffix}").pixels.size == 3 * limit


def test_an_avif_of_too_many_pixels(tmp_path: Path) -> None:
    expected = "AVIF holds at most 268435456 pixels, not 16385 x 16384; use PNG or TIFF"
    with pytest.raises(ImageFileError, match=expected):
        check_writable(tmp_path / "a.avif", ImageSpec(16384, 16385, "RGB", "uint8"))


@pytest.mark.parametrize(("name", "most"), [("exif", 65527), ("xmp", 65504)])
def test_metadata_that_is_too_large_for_a_jpeg(tmp_path: Path, name: str, most: int) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    content = b"MM\0*\0\0\0\x08\0\0" if name == "exif" else b"<x/>"  # no tags
    largest = content.ljust(most)
    write_image(tmp_path / "a.jpg", DecodedImage(pixels, **{name: largest}))
    assert largest in (tmp_path / "a.jpg").read_bytes()
    expected = f"JPEG holds at most {most} bytes of {name.upper()}, not {most + 1}; use PNG or TIFF"
    with pytest.raises(ImageFileError, match=expected):
        write_image(tmp_path / "b.jpg", DecodedImage(pixels, **{name: largest + b" "}))
    assert not (tmp_path / "b.jpg").exists()


def test_an_encoder_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encode.LARGEST_SIDE, "JPEG", 70000)
    with pytest.raises(ImageFileError, match="JPEG cannot be written: broken data stream when writing image file"):
        write_image(tmp_path / "a.jpg", DecodedImage(np.zeros((1, 65501, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []
