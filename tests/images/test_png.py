"""PNG of every kind, built chunk by chunk: exact pixels; and chunks that are damaged or missing."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mambair.images import png
from mambair.images.files import ImageFileError, read_image, read_size
from mambair.images.opened import SEVERAL

HEIGHT, WIDTH = 19, 13
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
PALETTE = np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)
OPACITY = np.random.default_rng(6).integers(0, 256, 256, dtype=np.uint8)
TABLE = [
    pytest.param(colour, depth, transparent, interlaced, animated, id="-".join(map(str, names)))
    for colour, depths in DEPTHS.items()
    for depth, transparent, interlaced, animated in itertools.product(
        depths, (False, True) if colour in (0, 2, 3) else (False,), (False, True), ("still", "first", "hidden")
    )
    for names in [(colour, depth, "tRNS" if transparent else "opaque", "adam7" if interlaced else "rows", animated)]
]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def samples(colour: int, depth: int) -> np.ndarray:
    """Random samples [H, W, C]; a quarter of the pixels are that of the first, which is the transparent colour."""
    random = np.random.default_rng(colour * 100 + depth)
    values = random.integers(0, 2**depth, (HEIGHT, WIDTH, CHANNELS[colour])).astype(np.uint16)
    values[random.random((HEIGHT, WIDTH)) < 0.25] = values[0, 0]
    return values


def packed(rows: np.ndarray, depth: int) -> bytes:
    """Rows [h, w, C] as bytes, with filter 1 (the difference from the pixel to the left) on every second one."""
    if 0 in rows.shape:
        return b""
    lines = []
    for number, row in enumerate(rows):
        if depth == 16:
            line = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
        elif depth == 8:
            line = row.astype(np.uint8).reshape(-1)
        else:
            bits = row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1) & 1
            line = np.packbits(bits.astype(np.uint8).reshape(-1))
        step = max(1, rows.shape[2] * depth // 8)
        if number % 2:
            left = np.concatenate([np.zeros(step, np.uint8), line[:-step]])
            line = line - left
        lines.append(bytes([number % 2]) + line.tobytes())
    return b"".join(lines)


def encoded(values: np.ndarray, depth: int, *, interlaced: bool = False) -> bytes:
    parts = [values[top::down, left::across] for top, left, down, across in PASSES] if interlaced else [values]
    return zlib.compress(b"".join(packed(part, depth) for part in parts))


def header(colour: int, depth: int, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced))


def frame(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))


def built(
    colour: int, depth: int, *, transparent: bool = False, interlaced: bool = False, animated: str = "still"
) -> bytes:
    """A whole file. ``animated``: "first" (its picture is the first frame) or "hidden" (it is none)."""
    values = samples(colour, depth)
    parts = [header(colour, depth, interlaced=interlaced)]
    if animated != "still":
        parts.append(chunk(b"acTL", struct.pack(">II", 2 if animated == "first" else 1, 0)))
    if colour == 3:
        parts.append(chunk(b"PLTE", PALETTE[: 2**depth].tobytes()))
    if transparent:
        content = OPACITY[: 2**depth].tobytes() if colour == 3 else values[0, 0].astype(">u2").tobytes()
        parts.append(chunk(b"tRNS", content))
    if animated == "first":
        parts.append(frame(0))
    parts.append(chunk(b"IDAT", encoded(values, depth, interlaced=interlaced)))
    if animated != "still":
        number = 1 if animated == "first" else 0
        other = encoded(2**depth - 1 - values, depth, interlaced=interlaced)
        parts += [frame(number), chunk(b"fdAT", struct.pack(">I", number + 1) + other)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def expected(colour: int, depth: int, transparent: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha, by the definition."""
    values = samples(colour, depth)
    if colour == 3:
        index = values[:, :, 0]
        return PALETTE[index], OPACITY[index] if transparent else None
    white, dtype = (65535, np.uint16) if depth == 16 else (255, np.uint8)
    scaled = (values.astype(np.uint32) * (white // (2**depth - 1))).astype(dtype)
    if colour in (4, 6):
        return scaled[:, :, :-1], scaled[:, :, -1]
    alpha = np.where((values == values[0, 0]).all(axis=2), 0, white).astype(dtype) if transparent else None
    return scaled, alpha


@pytest.mark.parametrize(("colour", "depth", "transparent", "interlaced", "animated"), TABLE)
def test_every_kind_gives_the_exact_pixels(
    tmp_path: Path, colour: int, depth: int, transparent: bool, interlaced: bool, animated: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(built(colour, depth, transparent=transparent, interlaced=interlaced, animated=animated))
    pixels, alpha = expected(colour, depth, transparent)
    read = read_image(path)
    assert read.pixels.dtype == pixels.dtype
    assert np.array_equal(read.pixels, pixels)
    assert (read.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(read.alpha, alpha)
    assert read.notes == ((SEVERAL,) if animated == "first" else ())
    assert read_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("colour", [0, 2])
def test_only_the_depth_of_a_transparent_colour_counts(tmp_path: Path, colour: int) -> None:
    """A sample of 8 bits stands in 16; some programs fill the upper byte."""
    content = built(colour, 8, transparent=True)
    key = samples(colour, 8)[0, 0]
    plain, odd = (chunk(b"tRNS", (key + offset).astype(">u2").tobytes()) for offset in (0, 0x7700))
    (tmp_path / "a.png").write_bytes(content.replace(plain, odd))
    assert np.array_equal(read_image(tmp_path / "a.png").alpha, expected(colour, 8, True)[1])


EXIF = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # orientation 6
BAD_METADATA = {
    "exif that ends": (chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"), "Corrupt EXIF data"),
    "exif that raises": (chunk(b"eXIf", b"what is this"), "damaged EXIF was dropped"),
    "raw profile": (chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n9\nzz")), "damaged EXIF was"),
    "profile without a header": (
        chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile")),
        "a damaged colour profile was dropped (no ICC header)",
    ),
    "profile that cannot be unpacked": (chunk(b"iCCP", b"name\0\0not zlib"), "damaged colour profile was dropped"),
    "wrong checksum": (chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile"))[:-1] + b"\0", "'iCCP' was dropped"),
    "too much text": (chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**27), 9)), "damaged metadata was dropped"),
    "short gamma": (chunk(b"gAMA", b"\0"), "damaged metadata was dropped"),
}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("name", BAD_METADATA)
def test_damaged_metadata_refuses_no_picture(tmp_path: Path, name: str, is_behind: bool, depth: int) -> None:
    damaged, note = BAD_METADATA[name]
    content = built(2, depth)
    place = content.index(b"IEND") - 4 if is_behind else len(png.SIGNATURE) + 25
    path = tmp_path / "a.png"
    path.write_bytes(content[:place] + damaged + content[place:])
    read = read_image(path)
    assert np.array_equal(read.pixels, expected(2, depth, False)[0])
    assert note in " ".join(read.notes)
    assert read.exif is None
    assert read.icc_profile is None
    assert read_size(path) == (HEIGHT, WIDTH)


def test_one_kind_of_damaged_metadata_takes_no_other_along(tmp_path: Path) -> None:
    content, place = built(2, 8), len(png.SIGNATURE) + 25
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    good = chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)) + chunk(b"eXIf", EXIF)
    path = tmp_path / "a.png"
    path.write_bytes(content[:place] + good + chunk(b"pHYs", b"\0") + content[place:])
    read = read_image(path)
    assert read.icc_profile == profile
    assert read.pixels.shape[:2] == (WIDTH, HEIGHT)  # turned, as the EXIF says
    assert [note for note in read.notes if "damaged" in note] == ["damaged metadata was dropped (Truncated pHYs chunk)"]


@pytest.mark.parametrize("is_behind", [False, True])
def test_the_size_and_the_picture_turn_alike(tmp_path: Path, is_behind: bool) -> None:
    content = built(0, 8)
    place = content.index(b"IEND") - 4 if is_behind else len(png.SIGNATURE) + 25
    path = tmp_path / "a.png"
    path.write_bytes(content[:place] + chunk(b"eXIf", EXIF) + content[place:])
    assert read_size(path) == (WIDTH, HEIGHT)
    assert np.array_equal(read_image(path).pixels, np.rot90(expected(0, 8, False)[0], -1))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", [2, 6])
def test_what_there_is_of_a_truncated_file(tmp_path: Path, colour: int, depth: int, interlaced: bool) -> None:
    content = built(colour, depth, interlaced=interlaced)
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    path = tmp_path / "a.png"
    path.write_bytes(content[: start + length * 3 // 4])
    with pytest.raises(ImageFileError, match=r"a\.png: is truncated"):
        read_image(path)
    read = read_image(path, allow_truncated=True)
    assert read.notes == ("it is damaged or truncated: missing pixels are black",)
    pixels, _ = expected(colour, depth, False)
    there = slice(0, HEIGHT // 2)
    if interlaced:  # three quarters of the bytes are all of the first six passes but for a part of the last
        assert np.array_equal(read.pixels[::8, ::8], pixels[::8, ::8])
    else:
        assert np.array_equal(read.pixels[there], pixels[there])
        assert not read.pixels[-1].any()


def test_nothing_is_not_what_there_is(tmp_path: Path) -> None:
    content = built(2, 16)
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 8])
    with pytest.raises(ImageFileError, match="ends before its first row does"):
        read_image(tmp_path / "a.png", allow_truncated=True)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_two_readings_that_differ_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colour: int, interlaced: bool
) -> None:
    import imagecodecs

    decode = imagecodecs.png_decode
    monkeypatch.setattr(imagecodecs, "png_decode", lambda data: decode(data) ^ np.uint16(0x100))
    (tmp_path / "a.png").write_bytes(built(colour, 16, interlaced=interlaced))
    with pytest.raises(ImageFileError, match=r"cannot be trusted: libpng reads .* and Pillow reads .* at row 0"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("depth", [8, 16])
def test_a_damaged_transparent_colour_is_an_error(tmp_path: Path, depth: int) -> None:
    content = bytearray(built(2, depth, transparent=True))
    content[content.index(b"tRNS") + 5] ^= 1
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(ImageFileError, match=r"a\.png: is damaged"):
        read_image(tmp_path / "a.png")


def test_pillow_agrees_on_what_it_reads(tmp_path: Path) -> None:
    """The builder of this file is checked by another reader."""
    for colour, interlaced in itertools.product((0, 2, 4, 6), (False, True)):
        (tmp_path / "a.png").write_bytes(built(colour, 8, interlaced=interlaced))
        with Image.open(tmp_path / "a.png") as picture:
            assert np.array_equal(np.array(picture).reshape(HEIGHT, WIDTH, -1), samples(colour, 8))
