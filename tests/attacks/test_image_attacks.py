"""Hostile pictures: small files that ask for much memory or time, and headers that lie; each is read, or one reason."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each file is read in a process of its own")
READ = "read"
W = 65535


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, size: tuple[int, int] = (8, 8), pixels: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    pixels = zlib.compress((b"\0" + bytes(24)) * 8) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def deflated(count: int) -> bytes:
    """So many zero bytes, deflated."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(count >> 20)), packer.flush()])


def exif(*entries: tuple[int, int, int, int], next_one: int = 0) -> bytes:
    """EXIF data of these (tag, type, count, value or place)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", next_one)


def jpeg(size: tuple[int, int] = (16, 16), *segments: tuple[int, bytes], **how: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "JPEG", **how)
    more = b"".join(struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in segments)
    return stream.getvalue()[:2] + more + stream.getvalue()[2:]


def jpeg_of_claimed_size(width: int, height: int) -> bytes:
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    data = jpeg((2000, 2000), progressive=True, quality=10)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


LAYOUT = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 200)}
LAYOUT |= {277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, 64)}


def tiff(changes: dict[int, tuple[int, int, int]], *, body: bytes = bytes(400), next_one: int = 0) -> bytes:
    """A grey picture of 8x8 with tags changed or added; ``body`` is at 200."""
    entries = [(tag, *value) for tag, value in sorted((LAYOUT | changes).items())]
    return exif(*entries, next_one=next_one).ljust(200, b"\0") + body


def big_tiff(count: int) -> bytes:
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + bytes(100)


def chain_of_directories(count: int) -> bytes:
    """Each points to the next."""
    ends = [8 + 18 * number for number in range(1, count)] + [0]
    return b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 8, end) for end in ends)


def gif(count: int = 1, *, comments: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (2, 2)).save(stream, "GIF")
    data = stream.getvalue()
    place = data.index(b",")
    more = b"!\xfe" + (b"\xff" + b"a" * 255) * comments + b"\0" if comments else b""
    return data[:place] + more + data[place:-1] * count + b";"


def bmp(
    width: int, height: int, *, depth: int = 24, packing: int = 0, colours: int = 0, body: bytes = bytes(100)
) -> bytes:
    start = 54 + len(body) if colours == 256 else 54
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, packing, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + sizes + body


class Hostile(NamedTuple):
    """A file, its ending, and what becomes of it: a pattern of the reason, or `READ`."""

    make: Callable[[], bytes]
    ending: str
    outcome: str


MANY = "more (chunks|segments) than a (PNG|JPEG) of its size needs"
PICTURES = {
    "text bomb": Hostile(lambda: png(*[chunk(b"zTXt", b"Comment\0\0" + deflated(2**26))] * 20), "png", READ),
    "XMP bomb": Hostile(lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + deflated(2**28))), "png", READ),
    "profile bomb": Hostile(lambda: png(chunk(b"iCCP", b"icc\0\0" + deflated(2**28))), "png", READ),
    "profile of 100 MB": Hostile(lambda: png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 0))), "png", READ),
    "EXIF in a circle": Hostile(lambda: png(chunk(b"eXIf", exif((34665, 4, 1, 8), next_one=8))), "png", READ),
    "EXIF of 2 GB": Hostile(lambda: png(chunk(b"eXIf", exif((315, 2, 2**31, 8), (270, 5, 2**29, 8)))), "png", READ),
    "pixels bomb": Hostile(lambda: png(pixels=deflated(2**29)), "png", READ),
    "many chunks": Hostile(lambda: png(chunk(b"tEXt", b"a\0b") * 10**6), "png", MANY),
    "many empty chunks": Hostile(lambda: png(chunk(b"IDAT", b"") * 10**6), "png", MANY),
    "PNG of 2^31 x 2^31": Hostile(lambda: png(size=(2**31 - 1, 2**31 - 1)), "png", "is too large|is damaged"),
    "animation without end": Hostile(lambda: png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), "png", READ),
    "JPEG of 65500 x 65500": Hostile(lambda: jpeg_of_claimed_size(65500, 65500), "jpg", "is too large"),
    "JPEG of many scans": Hostile(lambda: jpeg_with_scans(1000), "jpg", r"10\d\d scans of 2000x2000 pixels"),
    "JPEG of many segments": Hostile(lambda: jpeg((16, 16), *[(0xFE, b"")] * 10**6), "jpg", MANY),
    "JPEG of fill bytes": Hostile(lambda: b"\xff\xd8" + b"\xff" * 10**8 + jpeg()[2:], "jpg", "65536 fill bytes"),
    "profile in 2040 segments": Hostile(
        lambda: jpeg((16, 16), *[(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65000))] * 2040), "jpg", READ
    ),
    "EXIF in circles": Hostile(
        lambda: jpeg((16, 16), (0xE1, b"Exif\0\0" + exif((34665, 4, 1, 8), (34853, 4, 1, 8), next_one=8))), "jpg", READ
    ),
    "index of 2^31 pictures": Hostile(
        lambda: jpeg((16, 16), (0xE2, b"MPF\0" + exif((0xB001, 4, 1, 2**31), (0xB002, 7, 2**31, 8)))), "jpg", READ
    ),
    "TIFF of 65535 tags": Hostile(lambda: b"II*\0\x08\0\0\0\xff\xff" + bytes(100), "tif", "is damaged|is truncated"),
    "BigTIFF of 2^32 tags": Hostile(lambda: big_tiff(2**32), "tif", "is damaged|is truncated"),
    "BigTIFF of 2^63 tags": Hostile(lambda: big_tiff(2**63 - 1), "tif", "is damaged|is truncated"),
    "2^32 strips": Hostile(
        lambda: tiff({273: (4, 2**32 - 1, 8), 279: (4, 2**32 - 1, 8), 278: (4, 1, 1)}),
        "tif",
        "is of an unsupported kind",
    ),
    "directories in a circle": Hostile(lambda: tiff({}, next_one=8), "tif", READ),
    "directories in themselves": Hostile(lambda: tiff({330: (4, 1, 8), 34665: (4, 1, 8)}), "tif", READ),
    "chain of directories": Hostile(lambda: chain_of_directories(300_000), "tif", "is damaged|is truncated|kind"),
    "TIFF of 2^31 x 2^31": Hostile(lambda: tiff({256: (4, 1, 2**31), 257: (4, 1, 2**31)}), "tif", "is too large"),
    "strip bomb": Hostile(
        lambda: tiff({259: (3, 1, 8), 279: (4, 1, 2**20)}, body=deflated(2**29)), "tif", f"{READ}|is damaged"
    ),
    "text of 2 GB": Hostile(lambda: tiff({270: (2, 2**31, 16), 700: (1, 2**32 - 1, 16)}), "tif", READ),
    "65535 samples": Hostile(lambda: tiff({277: (3, 1, 65535), 258: (3, 65535, 8)}), "tif", "kind|is damaged"),
    "GIF of 65535 x 65535": Hostile(
        lambda: b"GIF89a" + struct.pack("<HHBBB6xc4HB", W, W, 128, 0, 0, b",", 0, 0, W, W, 0) + b"\2\2D\1\0;",
        "gif",
        "is too large",
    ),
    "GIF of many frames": Hostile(lambda: gif(300_000), "gif", READ),
    "GIF of many comments": Hostile(lambda: gif(comments=100_000), "gif", READ),
    "BMP of 2^31 x 2^31": Hostile(lambda: bmp(2**31 - 1, -(2**31 - 1)), "bmp", "is too large"),
    "BMP of nothing": Hostile(
        lambda: bmp(16000, 16000, depth=8, packing=1, colours=256, body=bytes(1024)), "bmp", "is truncated|is damaged"
    ),
    "palette of 2^31": Hostile(lambda: bmp(8, 8, depth=8, colours=2**31 - 1), "bmp", "is of an unsupported kind"),
    "header of blanks": Hostile(lambda: b"P6" + b" " * 2**24 + b"8 8 255\n" + bytes(192), "ppm", "longer than 65536"),
    "header of comments": Hostile(lambda: b"P6\n" + b"#\n" * 2**23 + b"8 8 255\n", "ppm", "longer than 65536"),
    "number without end": Hostile(lambda: b"P6 " + b"9" * 2**24 + b" 8 255\n", "ppm", "longer than 65536"),
    "PPM of 10^16 pixels": Hostile(lambda: b"P6 99999999 99999999 255\n", "ppm", "is too large"),
    "PSD of 300000 x 300000": Hostile(
        lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHHIII", 3, 300000, 300000, 8, 3, 0, 2**32 - 1, 2**32 - 1),
        "psd",
        "is too large|is damaged|is truncated",
    ),
    "icon of 65535 icons": Hostile(
        lambda: b"\0\0\1\0\xff\xff" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**31, 22) * 65535, "ico", "is "
    ),
    "QOI of 2^31 x 2^31": Hostile(
        lambda: b"qoif" + struct.pack(">IIBB", 2**31 - 1, 2**31 - 1, 3, 0) + bytes(100), "qoi", "is too large"
    ),
    "box of 2^63 bytes": Hostile(
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4sQ", 1, b"jp2h", 2**63) + bytes(50), "jp2", "is "
    ),
}
# Sparse files and what is no file at all: made in place
PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "file of 10 GB": (
        lambda path: os.truncate(path, path.write_bytes(png()) * 0 + 10 * 2**30),
        "has more than 4563402752 bytes",
    ),
    "pipe": (os.mkfifo, "is not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "file of the kernel": (
        lambda path: path.symlink_to("/proc/self/status"),
        "is not an image of a known format|broken link",
    ),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read|broken link"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
}
READER = """
import json, os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import imagecodecs, tifffile
from mambair.images.files import ImageFileError, read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[2]).iterdir()):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        text = "read"
        try:
            read_image(path)
        except ImageFileError as error:
            text = str(error)
        Path(sys.argv[3], path.name).write_text(text)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    print(json.dumps([path.name, os.waitstatus_to_exitcode(status), used.ru_maxrss - before]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, tuple[int, int, str]]:
    """For each file: exit code (-14 after 20 seconds), the growth of memory in KiB, and what was said."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "in").mkdir(), (folder / "out").mkdir()
    for name, each in PICTURES.items():
        (folder / "in" / f"{name}.{each.ending}").write_bytes(each.make())
    for name, (plant, _) in PLANTED.items():
        plant(folder / "in" / f"{name}.png")
    command = [sys.executable, "-W", "ignore", "-c", READER, str(repository), str(folder / "in"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for name, code, kib in map(json.loads, done.stdout.splitlines()):
        said = folder / "out" / name
        found[Path(name).stem] = code, kib, said.read_text() if said.exists() else ""
    return found


@pytest.mark.parametrize("name", [*PICTURES, *PLANTED])
def test_hostile_pictures(name: str, outcomes: dict[str, tuple[int, int, str]]) -> None:
    expected = PICTURES[name].outcome if name in PICTURES else PLANTED[name][1]
    code, kib, said = outcomes[name]
    assert code == 0, "it took more than 20 seconds, or ended the process"
    assert re.search(expected, said) and said.isprintable(), said
    if sys.platform == "linux":
        assert kib < 2**20, "a GiB"
