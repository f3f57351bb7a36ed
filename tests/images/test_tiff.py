"""TIFF of every layout: the exact samples, or a refusal; and files that lie."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mambair.images import tiff
from mambair.images.files import ImageFileError, read_image, read_size

HEIGHT, WIDTH = 37, 45
DTYPES = ("uint8", "uint16", "float32")
# compression and predictor; floats have no predictor 2, integers no predictor 3
CODINGS = {
    "plain": (None, None),
    "lzw": ("lzw", None),
    "deflate": ("zlib", None),
    "lzw with differences": ("lzw", True),
    "deflate with differences": ("zlib", True),
}
TABLE = [
    pytest.param(colours, planar, tiled, dtype, alpha, coding, order, id="-".join((*names, order)))
    for colours, planar, tiled, dtype, alpha, coding in itertools.product(
        (1, 3), ("contig", "separate"), (False, True), DTYPES, (None, "assocalpha", "unassalpha"), CODINGS
    )
    for names in [(str(colours), planar, "tiles" if tiled else "strips", dtype, str(alpha), coding)]
    # byte orders take turns: each meets every other property
    for order in ("<>"[sum(map(len, names)) % 2],)
]


def samples(channels: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Random samples [H, W, channels]; the last is 0 here and there."""
    random = np.random.default_rng(seed)
    if dtype == "float32":
        values = random.random((HEIGHT, WIDTH, channels)).astype(np.float32)
    else:
        values = random.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)
    values[random.random((HEIGHT, WIDTH)) < 0.1, -1] = 0
    return values


def written(path: Path, values: np.ndarray, *, planar: str = "contig", **how: object) -> Path:
    """A TIFF of samples [H, W, C]."""
    stored = values.transpose(2, 0, 1) if planar == "separate" else values
    if values.shape[2] == 1:
        stored, planar = values[:, :, 0], None
    tifffile.imwrite(path, np.ascontiguousarray(stored), planarconfig=planar, metadata=None, **how)
    return path


def without_multiplication(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours as they were before they were multiplied by alpha: rounded at a half and clipped to white."""
    divisor = alpha[:, :, None].astype(np.float64)
    if colour.dtype == np.float32:
        ratio = colour / np.where(divisor > 0, divisor, 1).astype(np.float32)
        return np.where(divisor > 0, ratio, 0).astype(np.float32)
    white = np.iinfo(colour.dtype).max
    # the product is exact, and a quotient is not so near to a half that float64 could round it to the other side
    exact = np.floor(colour.astype(np.float64) * white / np.where(divisor > 0, divisor, 1) + 0.5)
    return np.where(divisor > 0, np.minimum(exact, white), 0).astype(colour.dtype)


@pytest.mark.parametrize(("colours", "planar", "tiled", "dtype", "alpha", "coding", "order"), TABLE)
def test_every_layout_gives_the_exact_samples(
    tmp_path: Path, colours: int, planar: str, tiled: bool, dtype: str, alpha: str | None, coding: str, order: str
) -> None:
    values = samples(colours + (alpha is not None), dtype)
    compression, predictor = CODINGS[coding]
    path = written(
        tmp_path / "a.tif",
        values,
        planar=planar,
        photometric="rgb" if colours == 3 else "minisblack",
        extrasamples=[alpha] if alpha else None,
        byteorder=order,
        compression=compression,
        predictor=predictor,
        **({"tile": (16, 32)} if tiled else {"rowsperstrip": 8}),
    )
    read = read_image(path)
    colour = values[:, :, :colours]
    if alpha == "assocalpha":
        colour = without_multiplication(colour, values[:, :, -1])
    assert read.pixels.dtype == values.dtype
    assert np.array_equal(read.pixels, colour)
    assert (read.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(read.alpha, values[:, :, -1])
    assert read.notes == ()
    assert read_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "packbits", "zstd", "lzma", "lzw"])
@pytest.mark.parametrize("stored", ["int16", "int32", "uint32", "float16", "float64"])
def test_other_types_and_codecs(tmp_path: Path, stored: str, compression: str | None, order: str) -> None:
    values = (samples(3, "float32") * (1 if stored.startswith("float") else 30000)).astype(stored)
    for planar in ("contig", "separate"):
        path = written(
            tmp_path / "a.tif", values, planar=planar, photometric="rgb", compression=compression, byteorder=order
        )
        given = np.float32 if stored.startswith("float") else np.uint16
        assert np.array_equal(read_image(path).pixels, values.astype(given))


# Pillow takes planes of 16 bits for such of 8
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("coding", CODINGS)
def test_pillow_reads_the_same_high_bytes(tmp_path: Path, colours: int, coding: str) -> None:
    values = samples(colours, "uint16")
    compression, predictor = CODINGS[coding]
    photometric = "rgb" if colours == 3 else "minisblack"
    path = written(tmp_path / "a.tif", values, photometric=photometric, compression=compression, predictor=predictor)
    with Image.open(path) as picture:
        other = np.array(picture).reshape(HEIGHT, WIDTH, colours)
    ours = read_image(path).pixels
    assert np.array_equal(ours >> (8 if other.dtype == np.uint8 else 0), other)


def packed(values: np.ndarray, bits: int) -> bytes:
    """A big-endian TIFF of one strip, samples packed without gaps within a row."""
    height, width, channels = values.shape
    single = values.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
    strip = np.packbits(single.astype(np.uint8).reshape(height, -1), axis=1).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 2 if channels == 3 else 1), (273, 0)]
    tags += [(277, channels), (278, height), (279, len(strip))]
    start = 8 + 2 + 12 * len(tags) + 4
    place = {273: start + 6, 258: start}  # the three depths of a colour picture stand before the strip
    entries = [
        struct.pack(">HHII", 258, 3, 3, place[258])
        if tag == 258 and channels == 3
        else struct.pack(">HHIHH", 258, 3, 1, number, 0)
        if tag == 258
        else struct.pack(">HHII", tag, 4, 1, place.get(tag, number))
        for tag, number in tags
    ]
    directory = struct.pack(">H", len(tags)) + b"".join(entries) + bytes(4)
    return struct.pack(">2sHI", b"MM", 42, 8) + directory + struct.pack(">3H", bits, bits, bits) + strip


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("colours", [1, 3])
def test_odd_depths_are_scaled_to_white(tmp_path: Path, bits: int, colours: int) -> None:
    white = 2**bits - 1
    values = np.random.default_rng(0).integers(0, white + 1, (HEIGHT, WIDTH, colours)).astype(np.uint16)
    values[0, 0], values[0, 1] = 0, white
    path = tmp_path / "a.tif"
    path.write_bytes(packed(values, bits))
    expected = np.floor(values.astype(np.float64) * 65535 / white + 0.5)
    assert np.array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [None, "unassalpha"])
def test_white_may_be_zero(tmp_path: Path, dtype: str, alpha: str | None) -> None:
    values = samples(1 + (alpha is not None), dtype)
    path = written(
        tmp_path / "a.tif", values, photometric="miniswhite", extrasamples=[alpha] if alpha else None, planar="contig"
    )
    read = read_image(path)
    white = np.float32(1) if dtype == "float32" else np.iinfo(dtype).max
    assert np.array_equal(read.pixels, white - values[:, :, :1])
    assert alpha is None or np.array_equal(read.alpha, values[:, :, 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_without_a_meaning_are_dropped_and_noted(tmp_path: Path, dtype: str, planar: str) -> None:
    values = samples(6, dtype)
    path = written(
        tmp_path / "a.tif",
        values,
        planar=planar,
        photometric="rgb",
        extrasamples=["unspecified", "unassalpha", "unspecified"],
    )
    read = read_image(path)
    assert np.array_equal(read.pixels, values[:, :, :3])
    assert np.array_equal(read.alpha, values[:, :, 4])
    assert read.notes == ("2 extra samples per pixel without a meaning for pictures dropped",)


REFUSED = {
    "CMYK": ({"photometric": "separated"}, samples(4, "uint16"), "CMYK of 16 bits; 16-bit and float TIFF must be grey"),
    "Lab": ({"photometric": "cielab"}, samples(3, "uint16"), "Lab of 16 bits"),
    "complex": ({"photometric": "minisblack"}, samples(1, "float32").astype("complex64"), "sample format 6"),
    "large integers": ({"photometric": "minisblack"}, samples(1, "uint16") * np.uint32(9), "it holds uint32 from"),
    "negative": ({"photometric": "minisblack"}, samples(1, "uint8").astype(np.int16) - 9, "it holds int16 from -9 to"),
    "not finite": ({"photometric": "rgb"}, samples(3, "float32") + np.float32("inf"), "not finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(tmp_path: Path, name: str) -> None:
    how, values, reason = REFUSED[name]
    path = written(tmp_path / "a.tif", values, **how)
    with pytest.raises(ImageFileError, match=r"a\.tif: is (of an unsupported kind|damaged)") as raised:
        read_image(path)
    assert reason in str(raised.value)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("coding", ["plain", "deflate"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_what_is_missing_is_an_error_or_black(tmp_path: Path, dtype: str, coding: str, planar: str) -> None:
    values = samples(4, dtype)
    path = written(
        tmp_path / "a.tif",
        values,
        planar=planar,
        photometric="rgb",
        extrasamples=["unassalpha"],
        compression=CODINGS[coding][0],
        rowsperstrip=8,
    )
    data = path.read_bytes()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets = file.pages[0].dataoffsets
    path.write_bytes(data[: offsets[2] + 20])
    with pytest.raises(ImageFileError, match="is truncated"):
        read_image(path)
    read = read_image(path, allow_truncated=True)
    assert read.notes == ("it is damaged or truncated: missing pixels are black",)
    whole = 3 if planar == "contig" else 1
    assert np.array_equal(read.pixels[:16, :, :whole], values[:16, :, :whole])
    assert not read.pixels[24:].any()
    assert not read.alpha[24:].any()


def test_strips_that_are_nowhere_are_not_black(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", samples(3, "uint16"), photometric="rgb", rowsperstrip=8)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["StripByteCounts"].valueoffset
    width = struct.calcsize("<I" if data[place + 2 : place + 4] == b"\0\0" else "<H")
    data[place : place + width] = bytes(width)
    path.write_bytes(bytes(data))
    with pytest.raises(ImageFileError, match="strip or tile 0 is not in the file"):
        read_image(path)


def test_two_readings_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = samples(3, "uint16")
    path = written(tmp_path / "a.tif", values, photometric="rgb", rowsperstrip=8)
    found = tiff._pillows_reading

    def other(probe: bytes) -> np.ndarray:
        reading = found(probe).copy()
        reading.flat[5] ^= 1
        return reading

    monkeypatch.setattr(tiff, "_pillows_reading", other)
    ours = values[0, 1].tolist()
    others = [*ours[:2], ours[2] ^ 1]
    with pytest.raises(ImageFileError, match=r"a\.tif: cannot be trusted: tifffile reads ") as raised:
        read_image(path)
    assert f"{ours} and Pillow reads {others} at row 0, column 1" in str(raised.value)
    with pytest.raises(ImageFileError, match="cannot be trusted"):
        read_image(path, allow_truncated=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", DTYPES)
def test_orientation_of_files_with_alpha(tmp_path: Path, dtype: str, orientation: int) -> None:
    values = samples(4, dtype)
    tag = (274, 3, 1, orientation, True)
    path = written(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"], extratags=[tag])
    turned = values.swapaxes(0, 1) if orientation > 4 else values
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    read = read_image(path)
    assert np.array_equal(read.interleaved(), turned)
    assert read_size(path) == turned.shape[:2]


def test_a_negative_is_not_its_preview(tmp_path: Path) -> None:
    values = samples(3, "uint8")
    path = written(tmp_path / "a.tif", values, photometric="rgb", extratags=[(50706, 1, 4, b"\1\4\0\0", True)])
    with pytest.raises(ImageFileError, match=r"is raw data of a camera \(DNG\), which is not supported"):
        read_image(path)
    path = written(tmp_path / "a.nef", values, photometric="rgb")
    with pytest.raises(ImageFileError, match="is raw data of a camera, which is not supported"):
        read_size(path)
