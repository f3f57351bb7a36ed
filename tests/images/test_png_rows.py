"""Decoding the first rows of a PNG: the same pixels as decoding all, or None where that is not sure."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mambair.images.files import ImageFileError, read_encoded, read_image, read_size
from mambair.images.png_rows import first_rows

PICTURE = np.random.default_rng(0).integers(0, 256, (53, 37, 3), dtype=np.uint8)


def png(pixels: np.ndarray = PICTURE, **how: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **how)
    return stream.getvalue()


@pytest.mark.parametrize("rows", [1, 2, 30, 52, 53])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_rows_are_those_of_the_whole(rows: int, channels: int) -> None:
    pixels = PICTURE[:, :, :channels]
    found = first_rows(png(pixels[:, :, 0] if channels == 1 else pixels), rows)
    assert found is not None
    assert np.array_equal(found, pixels[:rows])


def test_a_colour_profile_is_no_hindrance() -> None:
    found = first_rows(png(icc_profile=b"profile"), 5)
    assert found is not None
    assert np.array_equal(found, PICTURE[:5])


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "rotated")
    return info


OTHERS = {
    "16 bits": png(PICTURE[:, :, 0].astype(np.uint16) * 257),
    "alpha": png(np.dstack([PICTURE, PICTURE[:, :, :1]])),
    "transparent colour": png(transparency=(1, 2, 3)),
    "exif": png(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    "text": png(pnginfo=text()),
    "no PNG": b"\xff\xd8\xff" + bytes(60),
    "short": png()[:20],
    "truncated": png()[:-30],
    "one bit": png(PICTURE[:, :, 0] > 128),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_to_the_whole_decoder(name: str) -> None:
    assert first_rows(OTHERS[name], 5) is None


def test_a_palette_is_left_to_the_whole_decoder() -> None:
    stream = io.BytesIO()
    Image.fromarray(PICTURE).quantize(16).save(stream, "PNG")
    assert first_rows(stream.getvalue(), 5) is None


@pytest.mark.parametrize("name", [name for name in [*OTHERS, "plain"] if name not in ("no PNG", "short", "truncated")])
def test_the_size_is_read_without_decoding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(OTHERS.get(name, png()))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("pixels were decoded"))
    assert read_size(tmp_path / "a.png") == (53, 37)


def test_too_many_pixels_are_refused_before_rows_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for attempt in (lambda image: image.rows(1), lambda image: image.size()):
        with pytest.raises(ImageFileError, match="37 x 53 pixels are more than the limit of 1960"):
            attempt(read_encoded(tmp_path / "a.png", max_pixels=1960))


@pytest.mark.parametrize("rows", [0, 54])
def test_a_number_of_rows_that_is_not_there(rows: int) -> None:
    assert first_rows(png(), rows) is None


def test_files_give_rows_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    Image.fromarray(PICTURE).save(tmp_path / "a.bmp")
    for name in ("a.png", "a.bmp"):
        assert np.array_equal(read_encoded(tmp_path / name).rows(20)[:20], PICTURE[:20])
        assert read_encoded(tmp_path / name).size() == (53, 37)
    (tmp_path / "cut.png").write_bytes(png()[:-30])
    with pytest.raises(ImageFileError, match=r"cut\.png: is truncated"):
        read_encoded(tmp_path / "cut.png").rows(20)


def test_damage_in_the_rows_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    data = bytearray(png())
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    data[start + 20 : start + 60] = bytes(40)
    data[start + length : start + length + 4] = zlib.crc32(bytes(data[start - 4 : start + length])).to_bytes(4, "big")
    (tmp_path / "bad.png").write_bytes(data)
    for attempt in (lambda: read_encoded(tmp_path / "bad.png").rows(53), lambda: read_image(tmp_path / "bad.png")):
        with pytest.raises(ImageFileError, match=r"bad\.png: is damaged"):
            attempt()
