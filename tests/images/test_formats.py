"""Formats besides PNG and TIFF: how they are told, what is read of them, and what is said of the others."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from mambair.images import formats
from mambair.images.files import SUFFIXES, ImageFileError, list_images, read_image, read_size
from mambair.images.formats import passed_over_text

RGBA = np.random.default_rng(0).integers(0, 256, (24, 16, 4), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (24, 16, 4)).astype(np.uint16)
PIXELS = {"L": RGBA[:, :, :1], "RGB": RGBA[:, :, :3], "RGBA": RGBA}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTED = Image.Exif()
ORIENTED[274] = 6


def saved(path: Path, mode: str, **how: object) -> Path:
    Image.fromarray(PIXELS[mode].squeeze()).save(path, **how)
    return path


def psd(channels: int, depth: int, mode: int = 3) -> bytes:
    """A document without layers: the flattened picture, plane by plane."""
    height, width = RGBA.shape[:2]
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, height, width, depth, mode)
    planes = np.ascontiguousarray(RGBA[:, :, :channels].transpose(2, 0, 1)).astype(f">u{depth // 8}")
    return head + bytes(12) + b"\0\0" + planes.tobytes()


@pytest.mark.parametrize(
    ("name", "modes", "format", "how"),
    [
        ("a.tga", ("L", "RGB", "RGBA"), "TGA", {}),
        ("rle.tga", ("L", "RGB", "RGBA"), "TGA", {"compression": "tga_rle"}),
        ("a.vda", ("L", "RGB", "RGBA"), "TGA", {}),
        ("a.pcx", ("L", "RGB"), "PCX", {}),
        ("a.apng", ("L", "RGB", "RGBA"), "PNG", {}),
        ("a.jpx", ("L", "RGB", "RGBA"), "JPEG2000", {}),
        ("a.j2c", ("L", "RGB", "RGBA"), "JPEG2000", {}),
        ("a.jp2", ("L", "RGB", "RGBA"), "JPEG2000", {}),
        ("a.j2k", ("L", "RGB", "RGBA"), "JPEG2000", {}),
        ("a.qoi", ("RGB", "RGBA"), "QOI", {}),
        ("a.dds", ("L", "RGB", "RGBA"), "DDS", {}),
        ("a.ico", ("RGB", "RGBA"), "ICO", {"sizes": [(16, 24)]}),
        ("a.dib", ("L", "RGB"), "BMP", {}),
        ("a.pnm", ("L", "RGB"), "PPM", {}),
        ("a.jxl", ("L", "RGB", "RGBA"), "JXL", {"lossless": True}),
    ],
)
def test_lossless_formats(
    tmp_path: Path, name: str, modes: tuple[str, ...], format: str, how: dict[str, object]
) -> None:
    if name.endswith("jxl"):
        pytest.importorskip("pillow_jxl")
    for mode in modes:
        path = saved(tmp_path / name, mode, **how)
        read = read_image(path)
        assert (read.mode, read.source_format) == (mode, format)
        assert np.array_equal(read.interleaved(), PIXELS[mode])
        assert read_size(path) == (24, 16)
        assert path in list_images(tmp_path)


@pytest.mark.parametrize(("name", "package"), [("a.heic", "pillow_heif"), ("a.heif", "pillow_heif")])
def test_lossy_formats_of_extras(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package).register_heif_opener()
    smooth = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    smooth.save(tmp_path / name, quality=90)
    # quality 90: a few grey levels on a smooth picture
    assert np.abs(read_image(tmp_path / name).pixels.astype(int) - np.array(smooth)).max() <= 6


@pytest.mark.parametrize("name", ["a.heic", "a.jxl"])
def test_extras_turn_a_picture_once(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pillow_jxl" if name == "a.jxl" else "pillow_heif")
    formats._load_extra("JXL" if name == "a.jxl" else "HEIF")
    marked = np.zeros((64, 32, 3), np.uint8)
    marked[:16, :16] = 255  # above left; orientation 6 moves it above right
    Image.fromarray(marked).save(tmp_path / name, exif=ORIENTED.tobytes())
    read = read_image(tmp_path / name).pixels
    assert read.shape == (32, 64, 3) == (*read_size(tmp_path / name), 3)
    assert read[8, 56].min() > 200
    assert read[8, 8].max() < 50


@pytest.mark.parametrize(
    ("format", "content", "package", "extra"),
    [
        ("HEIF", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "pillow_heif", "heif"),
        ("JXL", b"\xff\x0a" + bytes(40), "pillow_jxl", "jxl"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, content: bytes, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(Image.OPEN, format, raising=False)
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(ImageFileError, match=rf"a\.png: is {format}, .*pip install 'mambair\[{extra}\]'"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("depth", [10, 12, 16])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_wide_jpeg_2000(tmp_path: Path, depth: int, codec: str, channels: int) -> None:
    white = 2**depth - 1
    values = WIDE[:, :, :channels] >> (16 - depth)
    values[0, 0] = white
    encoded = imagecodecs.jpeg2k_encode(values.squeeze(), level=0, bitspersample=depth, codecformat=codec)
    (tmp_path / "a.jp2").write_bytes(encoded)
    if codec == "j2k" and channels == 4:
        values = values[:, :, :4]
    read = read_image(tmp_path / "a.jp2")
    expected = np.floor(values.astype(np.float64) * 65535 / white + 0.5)
    assert np.array_equal(read.interleaved(), expected)
    assert read_size(tmp_path / "a.jp2") == (24, 16)


def deep_values(depth: int, channels: int) -> np.ndarray:
    """Ramps that fill the range, of which lossless codecs keep every value."""
    ramp = np.linspace(0, 2**depth - 1, 16 * 24).reshape(16, 24, 1)
    return np.rint(np.repeat(ramp, channels, 2)).astype(np.uint16 if depth > 8 else np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("depth", [8, 10, 12])
def test_an_avif_keeps_its_depth(tmp_path: Path, depth: int, channels: int) -> None:
    if not (features.check("avif") and imagecodecs.AVIF.available):
        pytest.skip("no AVIF here")
    values = deep_values(depth, channels)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(values.squeeze(), level=100, bitspersample=depth))
    read = read_image(tmp_path / "a.avif")
    white = 2**depth - 1
    expected = values if depth == 8 else np.floor(values.astype(np.float64) * 65535 / white + 0.5)
    assert read.notes == () and read.pixels.dtype == values.dtype
    assert np.array_equal(read.interleaved(), expected)
    assert read_size(tmp_path / "a.avif") == (16, 24)


@pytest.mark.parametrize("mode", ["L;16", "RGB;16", "RGBA;16"])
@pytest.mark.parametrize("is_12", [False, True])
def test_a_heif_keeps_its_depth(tmp_path: Path, mode: str, is_12: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(package.options, "SAVE_HDR_TO_12_BIT", is_12)
    depth, channels = 12 if is_12 else 10, len(mode.removesuffix(";16"))
    values = deep_values(depth, channels)
    package.from_bytes(mode, (24, 16), (values << (16 - depth)).tobytes()).save(tmp_path / "a.heic", quality=-1)
    read = read_image(tmp_path / "a.heic")
    assert read.notes == () and read.pixels.dtype == np.uint16
    # x265 has no lossless RGB: its YCbCr of that depth loses less than 2 steps
    difference = np.abs(read.interleaved() / 65535 * (2**depth - 1) - values)
    assert difference.max() <= (0.5 if channels == 1 else 2)


@pytest.mark.parametrize("other", [None, "fails", "8 bits", "other pixels", "another size"])
def test_a_deep_avif_that_only_pillow_reads_becomes_8_bits(
    tmp_path: Path, other: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (features.check("avif") and imagecodecs.AVIF.available):
        pytest.skip("no AVIF here")
    values = deep_values(10, 3)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(values, level=100, bitspersample=10))

    def decode(data: bytes, index: int) -> np.ndarray:
        if other == "fails":
            raise RuntimeError("no")
        changed = {"8 bits": (values >> 2).astype(np.uint8), "other pixels": values[::-1], "another size": values[:9]}
        return changed.get(str(other), values)

    monkeypatch.setattr(imagecodecs, "avif_decode", decode)
    read = read_image(tmp_path / "a.avif")
    if other is None:
        assert read.notes == () and read.pixels.dtype == np.uint16
    else:
        assert read.notes == ("its 10 bits were read as 8",) and read.pixels.dtype == np.uint8
        assert np.abs(read.pixels - values / 1023 * 255).max() <= 1


@pytest.mark.parametrize("white", [1023, 65535])
@pytest.mark.parametrize("is_text", [False, True])
def test_wide_ppm(tmp_path: Path, white: int, is_text: bool) -> None:
    values = np.random.default_rng(0).integers(0, white + 1, (5, 4, 3)).astype(">u2")
    kind = "3" if is_text else "6"
    body = "\n".join(map(str, values.ravel())).encode() + b" # end" if is_text else values.tobytes()
    path = tmp_path / "a.ppm"
    path.write_bytes(f"P{kind}\n# a comment\n4 5\n{white}\n".encode() + body)
    expected = np.floor(values.astype(np.float64) * 65535 / white + 0.5)
    assert np.array_equal(read_image(path).pixels, expected)
    path.write_bytes(path.read_bytes()[: -len(body) // 2])
    with pytest.raises(ImageFileError, match="is truncated"):
        read_image(path)
    read = read_image(path, allow_truncated=True)
    assert np.array_equal(read.pixels[:2], expected[:2])
    assert not read.pixels[-1].any()


def bmp(bits: int, masks: tuple[int, ...], words: np.ndarray, *, compression: int = 3, from_top: bool = False) -> bytes:
    """A BMP with a header of version 4."""
    height, width = words.shape
    stride = (width * bits // 8 + 3) // 4 * 4
    rows = words if from_top else words[::-1]
    dtype = f"<u{max(bits // 8, 1)}"
    pixels = b"".join(row.astype(dtype).tobytes().ljust(stride, b"\0") for row in rows)
    size = (-height if from_top else height) & 0xFFFFFFFF
    header = struct.pack("<IIIHHIIIIII", 108, max(width, 1), size, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<4I", *masks, *[0] * (4 - len(masks))) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108) + header + pixels


MASKS = {
    "4444": (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
    "231": (16, (0x30, 0x0E, 0x01)),
    "3103": (16, (0xE000, 0x1FF8, 0x0007)),
    "1555": (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
    "565": (16, (0xF800, 0x07E0, 0x001F)),
    "2101010": (32, (0x3FF00000, 0x000FFC00, 0x000003FF, 0xC0000000)),
    "111110": (32, (0xFFE00000, 0x001FFC00, 0x000003FF)),
    "8888": (32, (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)),
    "no green": (32, (0xFFFF0000, 0, 0x0000FFFF)),
}


@pytest.mark.parametrize("from_top", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_bmp_with_masks(tmp_path: Path, name: str, from_top: bool) -> None:
    bits, masks = MASKS[name]
    words = np.random.default_rng(0).integers(0, 2**bits, (7, 5), dtype=np.uint64)
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp(bits, masks, words, from_top=from_top))
    planes = [(words & mask) // (mask & -mask) if mask else words * 0 for mask in masks]
    whites = [mask // (mask & -mask) if mask else 1 for mask in masks]
    largest = 255 if max(whites) <= 255 else 65535
    expected = [np.floor(plane * largest / white + 0.5) for plane, white in zip(planes, whites, strict=True)]
    read = read_image(path)
    # Pillow rounds 5 and 6 bits down
    tolerance = 1 if name in ("1555", "565") else 0
    # and takes the first bit of 1555 for padding
    assert read.mode == ("RGBA" if len(masks) == 4 and name != "1555" else "RGB")
    values = read.interleaved()
    assert np.abs(values.astype(int) - np.stack(expected[: values.shape[2]], 2)).max() <= tolerance
    assert read_size(path) == (7, 5)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageFileError, match="is truncated"):
        read_image(path)


NAMED = {
    "OpenEXR": (b"v/1\x01\2\0\0\0" + bytes(60), "is OpenEXR, which is not supported; convert it to PNG or TIFF"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG, a vector format, which is"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript, which is not supported"),
    "PDF": (b"%PDF-1.7\n", "is PDF, which is not supported"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "is not an image but a web page"),
    "Canon": (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "is raw data of a camera, which is not supported"),
    "Canon 3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "is raw data of a camera, which is not supported"),
    "video": (b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(40), "is not an image but a video"),
    "wide Photoshop": (psd(3, 16), "is of an unsupported kind: a Photoshop document of 16 bits"),
    "BMP with JPEG": (bmp(0, (1, 2, 4), np.zeros((1, 0)), compression=4), "is of an unsupported kind: BMP that holds"),
    "BMP with gaps": (bmp(16, (5, 2, 8), np.zeros((1, 1))), "kind: BMP of 16 bits with masks 5 2 8"),
    "BMP of 2 bits": (bmp(2, (0, 0, 0), np.zeros((1, 0)), compression=0), "kind: BMP of 2 bits per pixel"),
    "BMP of 64 bits": (bmp(64, (0, 0, 0), np.zeros((1, 1)), compression=0), "kind: BMP of 64 bits per pixel"),
    "lossless JPEG": (b"\xff\xd8\xff\xf7" + bytes(40), "is JPEG-LS, which is not supported"),
    "FITS": (b"SIMPLE  =                    T" + bytes(60), "is FITS, which is not supported"),
    "SGI": (b"\x01\xda\0\x01" + bytes(60), "is SGI, which is not supported"),
    "Sun raster": (b"\x59\xa6\x6a\x95" + bytes(60), "is Sun raster, which is not supported"),
    "X bitmap": (b"#define im_width 8\n#define im_height 8\n", "is X bitmap, which is not supported"),
    "X pixmap": (b"/* XPM */\nstatic char *a[] = {", "is X pixmap, which is not supported"),
    "IFUNC image": (b"Image type: L image\r\n", "is IFUNC image, which is not supported"),
    "metafile": (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60), "is a Windows metafile, which is not supported"),
    "DPX": (b"SDPX" + bytes(60), "is film scans (DPX), which is not supported"),
    "KTX": (b"\xabKTX 20\xbb\r\n", "is textures (KTX), which is not supported"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is HDF5, which is not supported"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", "is not an image but a video"),
    "Matroska": (b"\x1a\x45\xdf\xa3" + bytes(60), "is not an image but a video"),
    "MPEG": (b"\0\0\1\xba" + bytes(60), "is not an image but a video"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "is not an image but an archive"),
    "tar": (b"a.png".ljust(257, b"\0") + b"ustar", "is not an image but an archive"),
    "cut JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is truncated (Truncated File Read)"),
    "cut GIF": (b"GIF89a", "is damaged (its GIF header"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    content, reason = NAMED[name]
    (tmp_path / "a.png").write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(ImageFileError) as raised:
            read(tmp_path / "a.png")
        assert reason in str(raised.value)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (4, "RGBA")])
def test_flattened_photoshop_documents(tmp_path: Path, channels: int, mode: str) -> None:
    (tmp_path / "a.psd").write_bytes(psd(channels, 8))
    read = read_image(tmp_path / "a.psd")
    assert read.mode == mode
    assert np.array_equal(read.interleaved(), RGBA[:, :, :channels])


def test_a_tga_is_told_by_its_name_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tga", "RGB")
    path.write_bytes(path.read_bytes().split(b"\0" * 8 + b"TRUEVISION")[0])
    assert np.array_equal(read_image(path).pixels, PIXELS["RGB"])
    path.rename(tmp_path / "a.png")
    with pytest.raises(ImageFileError, match=r"a\.png: is not an image of a known format"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("kept", [40, 0.5, 0.95])
def test_errors_of_avif(tmp_path: Path, kept: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS["RGB"]).save(stream, "AVIF")
    data = stream.getvalue()
    (tmp_path / "a.avif").write_bytes(data[: kept if kept > 1 else int(len(data) * kept)])
    with pytest.raises(ImageFileError, match=r"a\.avif: is (truncated|damaged) \("):
        read_image(tmp_path / "a.avif")
    place = data.index(b"ispe") + 8
    (tmp_path / "a.avif").write_bytes(data[:place] + struct.pack(">II", 50000, 50000) + data[place + 8 :])
    with pytest.raises(ImageFileError, match="is too large: 50000 x 50000 pixels are more than the limit"):
        read_size(tmp_path / "a.avif")


BAD_EXIF = (b"nonsense", b"MM\0*\0\0\0\x08\xff\xff" + b"\1\x12\0\2" * 9, b"II*\0")


@pytest.mark.parametrize("exif", BAD_EXIF, ids=["text", "lies", "cut"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_damaged_exif_refuses_no_picture(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = saved(tmp_path / f"a{suffix}", "RGB", exif=b"Exif\0\0" + exif)
    read = read_image(path)
    assert read.pixels.shape == (24, 16, 3)
    assert read_size(path) == (24, 16)
    assert read.exif is None
    assert read.notes


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_a_damaged_profile_is_dropped_and_noted(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a{suffix}", "RGB", icc_profile=SRGB[:36] + b"nope" + SRGB[40:])
    read = read_image(path)
    assert read.icc_profile is None
    assert read.notes == ("a damaged colour profile was dropped (no ICC header)",)


def test_damaged_segments_of_a_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", "RGB", quality=95)
    expected = read_image(path).pixels
    data = path.read_bytes()
    # a picture index that Pillow follows beyond its end
    path.write_bytes(data[:2] + b"\xff\xe2\0\x0aMPF\0MM\0*" + data[2:])
    read = read_image(path)
    assert np.array_equal(read.pixels, expected)
    assert read.source_format == "JPEG"
    assert read.notes


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".gif", ".tga", ".ppm", ".tif"])
def test_what_there_is_of_a_truncated_file(tmp_path: Path, suffix: str) -> None:
    smooth = np.array(Image.linear_gradient("L").convert("RGB"))[::-1].copy()  # the first rows are not black
    path = tmp_path / f"a{suffix}"
    Image.fromarray(smooth).save(path)
    whole = read_image(path).pixels
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageFileError, match="is truncated"):
        read_image(path)
    read = read_image(path, allow_truncated=True)
    assert read.notes[0] == "it is damaged or truncated: missing pixels are black"
    same = (read.pixels == whole).all(axis=(1, 2)).mean()
    assert 0.5 < same < 0.9


def test_messages_of_decoders_stay_with_their_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS["RGB"]).save(path, compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(bytes(data))
    with pytest.raises(ImageFileError, match=r"a\.tif: is damaged \(decoder error -2\); ZIPDecode: "):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_files_that_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.exr", "c.exr", "d.txt", "e", ".hidden", "f/g.NEF", "f/h.jxl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    over: list[Path] = []
    found = list_images(tmp_path, recursive=True, passed_over=over.append)
    assert [path.name for path in found] == ["a.png", "h.jxl"]
    assert sorted(path.name for path in over) == ["b.exr", "c.exr", "d.txt", "e", "g.NEF"]
    endings = {".exr": 2, ".txt": 1, "": 1, ".nef": 1}
    assert passed_over_text(endings) == (
        "5 files passed over, by ending: 2 .exr (OpenEXR, not supported), 1 without an ending, "
        "1 .nef (raw data of a camera, not supported), 1 .txt"
    )


SEVERAL: dict[str, tuple[str, dict[str, object]]] = {
    "a.gif": ("P", {}),
    "a.webp": ("RGB", {}),
    "a.avif": ("RGB", {}),
    "a.png": ("RGB", {}),
    "a.tif": ("RGB", {}),
    "wide.tif": ("I;16", {}),
    "a.mpo": ("RGB", {"format": "MPO"}),
    "a.heic": ("RGB", {}),
}


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_pictures_the_first_is_read_and_it_is_noted(tmp_path: Path, name: str, number: int) -> None:
    mode, how = SEVERAL[name]
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    ramps = [np.full((16, 24), 60 * each, np.uint16) for each in range(number)]
    pictures = [Image.fromarray(ramp) if mode == "I;16" else Image.fromarray(ramp.astype(np.uint8)) for ramp in ramps]
    first, *others = [each if mode == "I;16" else each.convert(mode) for each in pictures]
    first.save(tmp_path / name, save_all=True, append_images=others, **how)
    image = read_image(tmp_path / name)
    assert image.pixels.max() <= 2  # codecs that lose something
    note = "it holds several pictures, of which the first was read"
    assert image.notes == ((note,) if number > 1 else ())


def test_every_ending_has_a_decoder() -> None:
    for package, _ in formats.EXTRAS.values():
        pytest.importorskip(package)
    for name in formats.EXTRAS:
        formats._load_extra(name)
    known = Image.registered_extensions()
    # JPEG's plugin opens the several pictures of one file, too
    assert [suffix for suffix in SUFFIXES if known.get(suffix) not in {*Image.OPEN, "MPO"}] == []
