"""Every mode in every format, what is kept and what is refused, and files that are not what they seem."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from mambair.images.files import (
    SUFFIXES,
    WRITABLE_SUFFIXES,
    DecodedImage,
    ImageFileError,
    list_images,
    read_image,
    read_rgb,
    read_size,
    write_image,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>'
LOSSLESS = (".png", ".tif", ".webp", ".bmp", ".ppm", ".pgm")
MODES = ("L", "LA", "RGB", "RGBA")
KEPT = {
    ".png": {"uint8": MODES, "uint16": MODES},
    ".tif": {"uint8": MODES, "uint16": ("L", "RGB", "RGBA"), "float32": ("L", "RGB", "RGBA")},
    ".webp": {"uint8": ("RGB", "RGBA")},
    ".bmp": {"uint8": ("L", "RGB")},
    ".ppm": {"uint8": ("L", "RGB"), "uint16": ("L", "RGB")},
    ".pgm": {"uint8": ("L",), "uint16": ("L",)},
    ".jpg": {"uint8": ("L", "RGB")},
    ".avif": {"uint8": ("RGB", "RGBA")},
}
CASES = [(suffix, dtype, mode) for suffix, kinds in KEPT.items() for dtype, modes in kinds.items() for mode in modes]
REFUSED = [
    (suffix, dtype, mode)
    for suffix in (".png", ".tif", ".jpg", ".bmp", ".webp", ".ppm")
    for dtype in ("uint8", "uint16", "float32")
    for mode in MODES
    if mode not in KEPT[suffix].get(dtype, ()) and (suffix, dtype) != (".webp", "uint8")
]
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def picture(mode: str, dtype: str = "uint8", height: int = 9, width: int = 13) -> DecodedImage:
    """Smooth colours, so that lossy formats stay close, with noise in the low bits where they hold it."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    planes = np.stack([rows, columns, 1 - rows, (rows + columns) / 2], axis=2)
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    noise = np.random.default_rng(0).random(planes.shape) * (0.001 * white)
    values = (planes * white * 0.99 + noise).astype(dtype)
    channels = 1 if mode.startswith("L") else 3
    return DecodedImage(
        np.ascontiguousarray(values[:, :, :channels]), np.ascontiguousarray(values[:, :, 3]) if "A" in mode else None
    )


def exif_data(**tags: object) -> bytes:
    exif = Image.Exif()
    exif[271] = "maker"
    exif[34665] = {36867: "2020:01:02 03:04:05"}
    for tag, value in tags.items():
        exif[int(tag.removeprefix("tag"))] = value
    return exif.tobytes().removeprefix(b"Exif\0\0")


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "dtype", "mode"),
    [pytest.param(*case, marks=needs_avif if case[0] == ".avif" else (), id="-".join(case)) for case in CASES],
)
def test_round_trip(tmp_path: Path, suffix: str, dtype: str, mode: str) -> None:
    image = picture(mode, dtype)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert (again.mode, again.pixels.dtype, again.pixels.shape) == (mode, image.pixels.dtype, image.pixels.shape)
    if suffix in LOSSLESS:
        assert np.array_equal(again.interleaved(), image.interleaved())
    else:
        # 90 and 95 of 100: 8 grey levels at the corners of a small smooth picture
        assert np.abs(again.interleaved().astype(int) - image.interleaved()).max() <= 8


@pytest.mark.parametrize(("suffix", "dtype", "mode"), [pytest.param(*case, id="-".join(case)) for case in REFUSED])
def test_formats_that_cannot_hold_it_say_so(tmp_path: Path, suffix: str, dtype: str, mode: str) -> None:
    with pytest.raises(ImageFileError, match="use ") as raised:
        write_image(tmp_path / f"a{suffix}", picture(mode, dtype))
    assert str(tmp_path / f"a{suffix}") in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_webp_has_no_grey_and_drops_its_profile(tmp_path: Path, mode: str) -> None:
    image = picture(mode)
    write_image(tmp_path / "a.webp", DecodedImage(image.pixels, image.alpha, icc_profile=SRGB))
    again = read_image(tmp_path / "a.webp")
    assert again.mode == mode.replace("L", "RGB")
    assert again.icc_profile is None
    assert np.array_equal(again.pixels, image.rgb())


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", "uint8"),
        (".png", "uint16"),
        (".tif", "uint8"),
        (".tif", "uint16"),
        (".tif", "float32"),
        (".jpg", "uint8"),
        (".webp", "uint8"),
        pytest.param(".avif", "uint8", marks=needs_avif),
    ],
)
def test_metadata_is_kept(tmp_path: Path, suffix: str, dtype: str) -> None:
    image = picture("RGB", dtype)
    write_image(tmp_path / f"a{suffix}", DecodedImage(image.pixels, None, SRGB, exif_data(), XMP))
    again = read_image(tmp_path / f"a{suffix}")
    assert again.icc_profile == SRGB
    assert again.xmp == XMP
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + again.exif)
    assert exif[271] == "maker"
    assert exif.get_ifd(34665)[36867] == "2020:01:02 03:04:05"
    # and Pillow sees the same in the file
    if dtype == "uint8":
        with Image.open(tmp_path / f"a{suffix}") as opened:
            assert opened.info["icc_profile"] == SRGB
            assert opened.getexif()[271] == "maker"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "png of 16 bits", "tif of 16 bits"])
def test_orientation_is_applied_and_reset(tmp_path: Path, kind: str, orientation: int) -> None:
    suffix = kind[:4].strip()
    path = tmp_path / f"a.{suffix}"
    image = picture("RGB", "uint16" if "16" in kind else "uint8", 16, 24)
    exif = exif_data(tag274=orientation)
    write_image(
        path, DecodedImage(image.pixels, exif=exif, xmp=f'<d tiff:Orientation="{orientation}" a="b"/>'.encode())
    )
    turned = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
        8: lambda p: np.rot90(p),
    }[orientation](image.pixels)
    assert read_size(path) == turned.shape[:2]
    again = read_image(path)
    assert again.pixels.shape == turned.shape
    # JPEG loses a little
    assert np.abs(again.pixels.astype(int) - turned).max() <= (8 if suffix == "jpg" else 0)
    write_image(path, again)
    assert read_image(path).pixels.shape == turned.shape
    # Pillow takes the attribute out of a TIFF's packet
    assert again.xmp in (b'<d tiff:Orientation="1" a="b"/>', b'<d  a="b"/>')


def palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(picture("RGB").pixels).quantize(16)
    if transparent:
        image.info["transparency"] = 3
    return image


@pytest.mark.parametrize(
    ("name", "make", "mode", "dtype"),
    [
        ("bits.png", lambda: Image.new("1", (5, 4), 1), "L", "uint8"),
        ("palette.png", lambda: palette(False), "RGB", "uint8"),
        ("palette_alpha.png", lambda: palette(True), "RGBA", "uint8"),
        ("palette.gif", lambda: palette(False), "RGB", "uint8"),
        ("cmyk.jpg", lambda: Image.new("CMYK", (5, 4), (10, 20, 30, 40)), "RGB", "uint8"),
        ("cmyk.tif", lambda: Image.new("CMYK", (5, 4), (10, 20, 30, 40)), "RGB", "uint8"),
        ("lab.tif", lambda: Image.new("LAB", (5, 4), (100, 128, 128)), "RGB", "uint8"),
        ("grey16.png", lambda: Image.fromarray(picture("L", "uint16").pixels[:, :, 0]), "L", "uint16"),
        ("float.tif", lambda: Image.fromarray(picture("L", "float32").pixels[:, :, 0]), "L", "float32"),
        ("grey.pgm", lambda: Image.new("L", (5, 4), 9), "L", "uint8"),
        ("colour.ppm", lambda: Image.new("RGB", (5, 4), (1, 2, 3)), "RGB", "uint8"),
        ("grey16.pgm", lambda: Image.fromarray(picture("L", "uint16").pixels[:, :, 0]), "L", "uint16"),
        ("one.png", lambda: Image.new("RGB", (1, 1), (1, 2, 3)), "RGB", "uint8"),
        ("alpha.bmp", lambda: Image.new("RGB", (3, 1), (1, 2, 3)), "RGB", "uint8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_of_files(tmp_path: Path, name: str, make: object, mode: str, dtype: str) -> None:
    source = make()
    read = read_image(saved(tmp_path / name, source))
    assert (read.mode, read.pixels.dtype.name) == (mode, dtype)
    assert read.source_mode
    if name.startswith("cmyk"):
        # no ink is white; 10, 20, 30 of 255 and 40 of black leave these
        assert np.abs(read.pixels[0, 0].astype(int) - [207, 198, 190]).max() <= 4
    elif name.startswith("bits"):
        assert read.pixels.min() == 255
    elif dtype != "uint8":
        assert np.array_equal(read.pixels[:, :, 0], np.array(source))


def test_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), (9, 9, 9))
    image.putpixel((1, 0), (1, 2, 3))
    read = read_image(saved(tmp_path / "a.png", image, transparency=(1, 2, 3)))
    assert read.alpha is not None
    assert read.alpha.tolist() == [[255, 0]]


def test_progressive_jpeg(tmp_path: Path) -> None:
    image = picture("RGB", height=32, width=40)
    plain = saved(tmp_path / "a.jpg", Image.fromarray(image.pixels), quality=90)
    progressive = saved(tmp_path / "b.jpg", Image.fromarray(image.pixels), quality=90, progressive=True)
    assert np.array_equal(read_image(plain).pixels, read_image(progressive).pixels)


def test_cmyk_goes_through_its_profile_if_it_works(tmp_path: Path) -> None:
    image = Image.new("CMYK", (5, 4), (10, 20, 30, 40))
    read = read_image(saved(tmp_path / "a.jpg", image, icc_profile=SRGB))  # a profile for other numbers
    assert read.mode == "RGB"
    assert read.icc_profile is None


def test_gif_and_several_pages_give_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 255, 0))
    for name in ("a.gif", "a.tif", "a.webp"):
        path = saved(tmp_path / name, first, save_all=True, append_images=[second])
        assert read_image(path).pixels[0, 0].argmax() == 0


@pytest.mark.parametrize("white", [65535, 1023])
def test_ppm_with_more_than_8_bits(tmp_path: Path, white: int) -> None:
    values = np.array([[[0, 1, white], [white // 2, 2, 3]]], ">u2")
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6\n# a comment\n2 1\n%d\n" % white + values.tobytes())
    expected = np.floor(values.astype(float) * 65535 / white + 0.5)
    assert np.array_equal(read_image(path).pixels, expected.astype(np.uint16))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageFileError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize(
    ("suffix", "dtype", "mode"),
    [pytest.param(*case, marks=needs_avif if case[0] == ".avif" else (), id="-".join(case)) for case in CASES],
)
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.9])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str, dtype: str, mode: str, kept: float) -> None:
    path = tmp_path / f"a{suffix}"
    image = picture(mode, dtype, 40, 50)
    noisy = np.random.default_rng(0).random(image.pixels.shape)
    white = 1 if dtype == "float32" else np.iinfo(dtype).max
    write_image(path, DecodedImage((noisy * white).astype(dtype), image.alpha))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageFileError) as raised:
        read_image(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("missing", [1, 12, 40])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_without_its_last_bytes(tmp_path: Path, dtype: str, missing: int) -> None:
    image = picture("RGB", dtype, 40, 50)
    path = tmp_path / "a.png"
    write_image(path, image)
    path.write_bytes(path.read_bytes()[:-missing])
    if missing <= 12:
        # the end marker alone is missing
        assert np.array_equal(read_image(path).pixels, image.pixels)
    else:
        with pytest.raises(ImageFileError, match="is truncated"):
            read_image(path)


def bomb(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    encoded = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(encoded))


def flipped_bits(path: Path) -> None:
    write_image(path.with_suffix(".tmp.png"), picture("RGB", height=60, width=60))
    data = bytearray(path.with_suffix(".tmp.png").read_bytes())
    for place in range(60, len(data) - 20, 50):
        data[place] ^= 0x55
    path.write_bytes(bytes(data))


AWKWARD = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("not a picture"), "is not an image of a known format"),
    "zeros": (lambda path: path.write_bytes(bytes(1000)), "is not an image of a known format"),
    "only a signature": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "is damaged (its PNG header"),
    "flipped bits": (flipped_bits, "is damaged"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "broken link"),
    "loop of links": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "bomb": (bomb, "is too large: 60000 x 60000 pixels are more than the limit"),
    "tiff header": (lambda path: path.write_bytes(b"II*\0\x08\0\0\0\0\0"), "is damaged (its TIFF header"),
    "tiff without anything": (lambda path: path.write_bytes(b"II*\0"), "is damaged"),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_files_are_named_with_the_reason(tmp_path: Path, name: str) -> None:
    make, reason = AWKWARD[name]
    path = tmp_path / 'it\'s a "name".png'
    make(path)
    with pytest.raises(ImageFileError) as raised:
        read_image(path)
    assert str(path) in str(raised.value)
    assert reason in str(raised.value)
    if name != "flipped bits":
        with pytest.raises(ImageFileError) as raised:
            read_size(path)
        assert reason in str(raised.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions mean nothing here")
def test_no_permission(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (2, 2)))
    path.chmod(0)
    with pytest.raises(ImageFileError, match="no permission"):
        read_image(path)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", Image.new("RGB", (3, 2), (9, 8, 7)))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").source_format == "PNG"
    assert read_rgb(tmp_path / "a.jpg")[0, 0].tolist() == [9, 8, 7]


def test_the_limit_can_be_raised_and_is_not_pillows(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (30, 20)))
    with pytest.raises(ImageFileError, match="30 x 20 pixels are more than the limit of 599"):
        read_image(path, max_pixels=599)
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = 10
        assert read_image(path, max_pixels=600).pixels.shape == (20, 30, 1)
        assert Image.MAX_IMAGE_PIXELS == 10
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_floats_must_be_finite(tmp_path: Path) -> None:
    values = np.array([[0, np.nan]], np.float32)
    with pytest.raises(ImageFileError, match="not finite"):
        read_image(saved(tmp_path / "a.tif", Image.fromarray(values)))


@pytest.mark.parametrize(("name", "package"), [("a.tif", "tifffile"), ("a.png", "imagecodecs")])
def test_a_decoder_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    write_image(tmp_path / name, picture("RGBA", "uint16"))
    write_image(tmp_path / "b.png", picture("RGBA"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageFileError, match=rf"{name}: is of 16 bits or float, .* pip install tifffile imagecodecs"):
        read_image(tmp_path / name)
    assert read_image(tmp_path / "b.png").mode == "RGBA"


@pytest.mark.parametrize(
    ("name", "quality", "text"),
    [
        ("a.xyz", None, "suffix must be one of .png"),
        ("a", None, "suffix"),
        ("a.jpg", 0, "1 to 100"),
        ("a.jpg", 101, "101"),
    ],
)
def test_wrong_targets(tmp_path: Path, name: str, quality: int | None, text: str) -> None:
    with pytest.raises(ImageFileError, match=text):
        write_image(tmp_path / name, picture("RGB"), quality=quality)


def test_quality_matters(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in (".jpg", ".webp"):
        write_image(tmp_path / f"low{suffix}", DecodedImage(noise), quality=30)
        write_image(tmp_path / f"high{suffix}", DecodedImage(noise))
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size / 2


def test_suffixes_are_lower_case_and_writable_ones_are_readable() -> None:
    assert set(WRITABLE_SUFFIXES) < set(SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros((4, 4), np.uint8),), r"\[H, W, 1\] or \[H, W, 3\]"),
        ((np.zeros((4, 4, 4), np.uint8),), "got shape"),
        ((np.zeros((0, 4, 3), np.uint8),), "non-empty"),
        ((np.zeros((4, 4, 3), np.float64),), "dtype"),
        ((np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)), "alpha"),
        ((np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)), "alpha"),
    ],
)
def test_content_is_checked(arguments: tuple, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DecodedImage(*arguments)


def test_listing_is_in_natural_order_and_leaves_out_the_rest(tmp_path: Path) -> None:
    for name in ("10.png", "2.PNG", "1.jpeg", "notes.txt", ".hidden.png", "b/3.tif", "b/c/4.bmp", ".git/5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "broken.png").symlink_to("nowhere")
    flat = [path.name for path in list_images(tmp_path)]
    assert flat == ["1.jpeg", "2.PNG", "10.png", "broken.png"]
    deep = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert deep == ["1.jpeg", "2.PNG", "10.png", "b/3.tif", "b/c/4.bmp", "broken.png"]


def test_listing_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="no such folder"):
        list_images(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageFileError, match="is not a folder"):
        list_images(tmp_path / "file")


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    write_image(tmp_path / "a.png", picture("RGB", height=50, width=60))
    expected = read_image(tmp_path / "a.png").pixels
    before = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        for read in pool.map(lambda _: read_image(tmp_path / "a.png"), range(64)):
            assert np.array_equal(read.pixels, expected)
    assert before == Image.MAX_IMAGE_PIXELS
