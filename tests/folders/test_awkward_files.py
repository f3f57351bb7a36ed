"""Files as they come in life, made here: each with what must become of it. One run over all of them at once."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, features

from mambair.commands import restore
from mambair.images.files import DecodedImage, read_image, write_image

Make = Callable[[Path], object]


class Case(NamedTuple):
    """A file under a name; ``result`` is (mode, dtype, (height, width)) of its restored double, or why there is none.

    None as result: it is no input at all, so nothing is said of it either.
    """

    name: str
    make: Make
    result: tuple[str, str, tuple[int, int]] | str | None


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pillow(mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: Any) -> Make:
    """Save a picture of noise through Pillow, in the format of the name or of ``format``."""

    def make(path: Path) -> None:
        image = Image.fromarray(noise(size[1], size[0], 4), "RGBA").convert("RGB").convert(mode)
        image.save(path, **options)

    return make


def data(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(size[1], size[0], 4), "RGBA").convert("RGB").convert(mode).save(stream, format, **options)
    return stream.getvalue()


def cut(format: str, share: float) -> Make:
    """The first part of a good file."""
    content = encoded(format)
    return data(content[: int(len(content) * share)])


def flipped(format: str) -> Make:
    content = bytearray(encoded(format, size=(80, 60)))
    for place in range(len(content) // 3, len(content) - 30, 40):
        content[place] ^= 0x55
    return data(bytes(content))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, *, interlaced: bool = False) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def array(values: np.ndarray, alpha: np.ndarray | None = None) -> Make:
    return lambda path: write_image(path, DecodedImage(values, alpha))


def palette(path: Path, **options: Any) -> None:
    Image.fromarray(noise(4, 6, 3)).quantize(8).save(path, **options)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(4, 6, 3)).save(path, exif=exif)


def broken_exif(path: Path) -> None:
    Image.fromarray(noise(4, 6, 3)).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")


def animation(path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def socket_file(path: Path) -> None:
    here = os.getcwd()  # noqa: PTH109, names of sockets are short
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def random_bytes(name: str) -> Make:
    return data(noise(5000, seed=len(name)).tobytes())


RGB = ("RGB", "uint8", (8, 12))
GREY = ("L", "uint8", (8, 12))
RGBA = ("RGBA", "uint8", (8, 12))
NO_IMAGE, NO_SUPPORT, LIMIT = "is not an image", "which is not supported", "more than the limit of"
DAMAGED, TRUNCATED = "is damaged (", "is truncated ("
WIDE = np.arange(72, dtype=np.uint16).reshape(4, 6, 3) * 900
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

CASES = [
    # kinds that must be restored
    Case("plain.png", pillow(), RGB),
    Case("grey.png", pillow("L"), GREY),
    Case("grey_alpha.png", pillow("LA"), ("LA", "uint8", (8, 12))),
    Case("rgba.png", pillow("RGBA"), RGBA),
    Case("one_bit.png", pillow("1"), GREY),
    Case("palette.png", palette, RGB),
    Case("palette_transparent.png", lambda path: palette(path, transparency=2), RGBA),
    Case("palette_bytes.png", lambda path: palette(path, transparency=bytes(range(0, 160, 20))), RGBA),
    Case("interlaced.png", data(png(1, 1, b"\0\x01\x02\x03", interlaced=True)), ("RGB", "uint8", (2, 2))),
    Case("grey16.png", array(WIDE[:, :, :1].copy()), ("L", "uint16", (8, 12))),
    Case("grey_alpha16.png", array(WIDE[:, :, :1].copy(), WIDE[:, :, 1].copy()), ("LA", "uint16", (8, 12))),
    Case("rgb16.png", array(WIDE), ("RGB", "uint16", (8, 12))),
    Case("rgba16.png", array(WIDE, WIDE[:, :, 0].copy()), ("RGBA", "uint16", (8, 12))),
    Case("all_transparent.png", array(noise(4, 6, 3), np.zeros((4, 6), np.uint8)), RGBA),
    Case("one_pixel.png", pillow(size=(1, 1)), ("RGB", "uint8", (2, 2))),
    Case("one_row.png", pillow(size=(90, 1)), ("RGB", "uint8", (2, 180))),
    Case("one_column.png", pillow(size=(1, 90)), ("RGB", "uint8", (180, 2))),
    Case("text_and_trailer.png", lambda path: path.write_bytes(encoded("PNG", size=(6, 4)) + b"trailing rubbish"), RGB),
    Case("plain.jpg", pillow(), RGB),
    Case("grey.jpg", pillow("L"), GREY),
    Case("progressive.jpg", pillow(progressive=True), RGB),
    Case("cmyk.jpg", pillow("CMYK"), RGB),
    Case("turned.jpg", turned, ("RGB", "uint8", (12, 8))),
    Case("broken_exif.jpg", broken_exif, RGB),
    Case("broken_profile.jpg", pillow(icc_profile=b"no profile"), RGB),
    Case("trailer.jpg", data(encoded("JPEG", size=(6, 4)) + bytes(100)), RGB),
    Case("eight.tif", pillow(), RGB),
    Case("sixteen.tif", array(WIDE), ("RGB", "uint16", (8, 12))),
    Case("float.tif", array((WIDE / 65535).astype(np.float32)), ("RGB", "uint16", (8, 12))),
    Case("lzw.tiff", pillow(compression="tiff_lzw"), RGB),
    Case("two_pages.tif", animation, RGB),
    Case("transparent.webp", array(noise(4, 6, 3), noise(4, 6)), RGBA),
    Case("animated.webp", animation, RGB),
    Case("animated.gif", animation, RGB),
    Case("plain.bmp", pillow(), RGB),
    Case("plain.ppm", pillow(), RGB),
    Case("ascii.pgm", data(b"P2\n# grey\n6 4\n255\n" + b"9 " * 24), GREY),
    Case("sixteen.ppm", array(WIDE), ("RGB", "uint16", (8, 12))),
    # names
    Case("upper.PNG", pillow(), RGB),
    Case("no image/inside.png", pillow(), RGB),
    Case("really_a_png.jpg", data(encoded("PNG", size=(6, 4))), RGB),
    Case("really_a_jpeg.png", data(encoded("JPEG", size=(6, 4))), RGB),
    Case("with space and 'quotes\".png", pillow(), RGB),
    Case("-i.png", pillow(), RGB),
    Case("$(touch hacked);`x`.png", pillow(), RGB),
    Case("%s{0}\\n*?[a].png", pillow(), RGB),
    Case("line\nbreak.png", pillow(), RGB),
    Case("ümläut 图.png", pillow(), RGB),
    Case(os.fsdecode(b"not_utf8_\xff\xfe.png"), data(encoded("PNG", size=(6, 4))), RGB),
    Case("two.dots.in.png", pillow(), RGB),
    Case("n" * 200 + ".png", pillow(), RGB),
    Case("deep/er/and/deeper/still.png", pillow(), RGB),
    Case("link_to_plain.png", link("plain.png"), RGB),
    # what cannot be restored, and why
    Case("empty.png", data(b""), "is empty (0 bytes)"),
    Case("text.png", data(b"This is no picture."), NO_IMAGE),
    Case("html.jpg", data(b"<html><body>404 Not Found</body></html>"), NO_IMAGE),
    Case("zeros.tif", data(bytes(5000)), NO_IMAGE),
    Case("random.webp", random_bytes("random"), NO_IMAGE),
    Case("archive.png", data(b"PK\3\4" + bytes(200)), NO_IMAGE),
    Case("vector.png", data(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), NO_SUPPORT),
    Case("script.png", data(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), NO_SUPPORT),
    Case("signature_only.png", data(b"\x89PNG\r\n\x1a\n"), DAMAGED),
    Case("cut.png", cut("PNG", 0.6), TRUNCATED),
    Case("cut.jpg", cut("JPEG", 0.6), TRUNCATED),
    Case("cut_early.jpg", cut("JPEG", 0.01), TRUNCATED),
    Case("cut.tif", cut("TIFF", 0.6), TRUNCATED),
    Case("cut.webp", cut("WEBP", 0.6), TRUNCATED),
    Case("cut.bmp", cut("BMP", 0.6), TRUNCATED),
    Case("cut.gif", cut("GIF", 0.5), TRUNCATED),
    Case("cut.ppm", cut("PPM", 0.6), TRUNCATED),
    Case("flipped_bits.png", flipped("PNG"), DAMAGED),
    Case("no_pixels.png", data(png(0, 5, b"")), DAMAGED),
    Case("few_pixels.png", data(png(6, 4, b"\0\1\2\3")), TRUNCATED),
    Case("bomb.png", data(png(60000, 60000, bytes(1000))), "60000 x 60000 pixels are " + LIMIT),
    Case(
        "bomb.bmp",
        data(b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0)),
        LIMIT,
    ),
    Case("bomb.ppm", data(b"P6\n70000 70000\n255\n"), LIMIT),
    Case("not_finite.tif", lambda path: Image.fromarray(np.full((4, 6), np.nan, np.float32)).save(path), "not finite"),
    Case("integers.tif", lambda path: Image.fromarray(np.full((4, 6), 1 << 20, np.int32)).save(path), "it holds int32"),
    Case("broken_link.png", link("nowhere.png"), "is a broken link"),
    Case("loop.png", link("loop.png"), "cannot be read"),
    Case("pipe.png", os.mkfifo, "not a regular file"),
    Case("socket.png", socket_file, "not a regular file"),
    # what is no input
    Case("folder.png", Path.mkdir, None),
    Case("notes.txt", data(b"notes"), None),
    Case(".hidden.png", pillow(), None),
    Case(".hidden/inside.png", pillow(), None),
    Case("Thumbs.db", random_bytes("thumbs"), None),
    Case("linked_folder", link("no image"), None),
    Case("out/old_result.png", pillow(), None),
]


def renamed(name: str) -> str:
    """The path of a result in the output folder; files of one stem and several suffixes keep both."""
    stems = [Path(case.name).with_suffix("").as_posix() for case in CASES if case.result is not None]
    path = Path(name)
    is_owner = path.suffix == ".png" or stems.count(path.with_suffix("").as_posix()) == 1
    stem = path.stem if is_owner else f"{path.stem}_{path.suffix[1:]}"
    return (path.parent / f"{stem}.png").as_posix()


class Outcome(NamedTuple):
    folder: Path
    code: int
    records: dict[str, dict[str, Any]]
    shown: str
    before: dict[str, bytes | str]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, weights_x2: Path) -> Outcome:
    """All cases restored in one run, into a folder inside of the input."""
    folder = tmp_path_factory.mktemp("life") / "in"
    for case in CASES:
        path = folder / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        case.make(path)
    before = contents(folder.parent)
    arguments = ["-i", str(folder), "-o", str(folder / "out"), "--weights", str(weights_x2)]
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        code = restore.main(arguments, task="sr")
    lines = (folder / "out" / "manifest.jsonl").read_text().splitlines()
    records = {str(folder / record["input"]): record for record in map(json.loads, lines)}
    return Outcome(folder, code, records, stream.getvalue(), before)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file under a folder but those in ``out``: its bytes, or what it is."""
    found: dict[str, bytes | str] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "out"]
        for name in names:
            path = Path(parent, name)
            is_plain = path.is_file() and not path.is_symlink()
            found[str(path)] = path.read_bytes() if is_plain else str(path.lstat().st_mode)
    return found


def test_there_are_many() -> None:
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[ascii(case.name)[1:-1][:40] for case in CASES])
def test_what_becomes_of_it(outcome: Outcome, case: Case) -> None:
    record = outcome.records.get(str(outcome.folder / case.name))
    target = outcome.folder / "out" / renamed(case.name)
    if case.result is None:
        assert record is None and f"/{case.name}: " not in outcome.shown
    elif isinstance(case.result, str):
        assert record is not None and record["status"] == "failed"
        assert any(reason in record["error"] for reason in case.result.split("|")), record["error"]
        assert "traceback" not in record and str(outcome.folder) not in record["error"]
        assert not target.exists()
        (line,) = [
            line for line in outcome.shown.splitlines() if line.startswith("failed: ") and f"/{case.name}: " in line
        ]
        assert record["error"] in line
    else:
        assert record is not None and record["status"] == "done", record
        image = read_image(target)
        assert (image.mode, image.pixels.dtype.name, image.pixels.shape[:2]) == case.result
        height, width = case.result[2]
        assert (record["size"], record["output_size"]) == ([width // 2, height // 2], [width, height])


def test_the_run_as_a_whole(outcome: Outcome) -> None:
    assert outcome.code == 1
    link = outcome.folder / "linked_folder"
    assert f"links to folders are not followed: 1 ({link}); name such a folder as input" in outcome.shown
    failed = sum(isinstance(case.result, str) for case in CASES)
    assert failed == sum(record["status"] == "failed" for record in outcome.records.values())
    results = [path for path in (outcome.folder / "out").rglob("*") if path.is_file()]
    wanted = {renamed(case.name) for case in CASES if isinstance(case.result, tuple)}
    found = {path.relative_to(outcome.folder / "out").as_posix() for path in results}
    assert found == {*wanted, "manifest.jsonl", "old_result.png"}


def test_nothing_else_was_written_or_changed(outcome: Outcome) -> None:
    assert contents(outcome.folder.parent) == outcome.before
    assert not Path("hacked").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions mean nothing here")
def test_no_permission(tmp_path: Path, weights_x2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    pillow()(tmp_path / "in" / "secret.png")
    (tmp_path / "in" / "secret.png").chmod(0)
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(weights_x2)]
    assert restore.main(arguments, task="sr") == 1
    assert "no permission to read it" in capsys.readouterr().err
