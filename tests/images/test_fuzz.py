"""Mutated files: no crash, no hang, no picture that differs from Pillow's reading where Pillow reads one."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

ROOT = Path(__file__).parents[2]
SECONDS = 600  # for one share of the files; a share takes about a minute
SHARES = 8

# run in a process of its own: a crash or a hang is that of the share
READ_ALL = """
import io, json, sys, warnings
from pathlib import Path
import numpy as np
from PIL import Image
from mambair.images.chatter import collected
from mambair.images.files import ImageFileError, read_image, read_size

warnings.simplefilter("ignore")

def pillows(data):
    "Pillow's reading, upright and in our channels, as 8 bits where that is all it has; None if it reads none."
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > 10**7:
            return None
        picture.load()
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            return np.array(picture)[:, :, None]
        if picture.mode == "CMYK" or picture.getexif().get(274, 1) != 1:
            return None  # colours and turns are compared elsewhere
        mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
        return np.array(picture.convert(mode + "A" * picture.has_transparency_data)).reshape(*picture.size[::-1], -1)
    except Exception:
        return None

counts = {"read": 0, "refused": 0, "compared": 0, "refused though Pillow reads it": 0}
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, file=sys.stderr, flush=True)  # the last name is that of a crash
    refusals = []
    try:
        image = read_image(path, max_pixels=10**7)
    except ImageFileError as error:
        counts["refused"] += 1
        image = None
        assert str(path) in str(error)
    try:
        size = read_size(path, max_pixels=10**7)
    except ImageFileError:
        assert image is None, f"{path.name}: a size that cannot be read of a picture that can"
        size = None
    if image is None:
        with collected():
            counts["refused though Pillow reads it"] += pillows(path.read_bytes()) is not None
        continue
    counts["read"] += 1
    assert size == image.pixels.shape[:2], f"{path.name}: {size} is not {image.pixels.shape}"
    with collected():
        other, ours = pillows(path.read_bytes()), image.interleaved()
    if other is None or other.shape != ours.shape or any("sample" in note for note in image.notes):
        continue
    if "planes" in path.name:  # Pillow takes planes of 16 bits for such of 8
        continue
    if ours.dtype == np.uint16 and other.dtype == np.uint8:
        ours = ours >> 8
    counts["compared"] += 1
    same = np.array_equal(ours, other) or (ours.dtype.kind == "f" and np.array_equal(ours, other.astype(ours.dtype)))
    assert same, f"{path.name}: {ours[ours != other][:5]} is not {other[ours != other][:5]}"
print(json.dumps(counts))
"""


def sources() -> dict[str, bytes]:
    """Small good files of the formats, several kinds of each."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :20]
    smooth = np.stack([rows * 10, columns * 12, rows + columns, 255 - rows], axis=2).astype(np.uint8)
    noise = random.integers(0, 256, (24, 20, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[271] = "maker"
    files: dict[str, bytes] = {}

    def add(name: str, picture: Image.Image, **how: object) -> None:
        stream = io.BytesIO()
        picture.save(stream, name.rpartition(".")[2], **how)
        files[name] = stream.getvalue()

    add("rgb.png", Image.fromarray(smooth[:, :, :3]), exif=exif)
    add("alpha.png", Image.fromarray(noise))
    add("palette.png", Image.fromarray(smooth[:, :, :3]).quantize(9), transparency=3)
    add("grey16.png", Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257))
    add("photo.jpeg", Image.fromarray(smooth[:, :, :3]), exif=exif)
    add("progressive.jpeg", Image.fromarray(noise[:, :, :3]), progressive=True)
    add("cmyk.jpeg", Image.fromarray(noise, "CMYK"))
    add("lossless.webp", Image.fromarray(noise), lossless=True, exif=exif)
    add("lossy.webp", Image.fromarray(smooth[:, :, :3]))
    add("rgb.bmp", Image.fromarray(smooth[:, :, :3]))
    add("palette.bmp", Image.fromarray(smooth[:, :, :3]).quantize(9))
    add("lzw.tiff", Image.fromarray(smooth[:, :, :3]), compression="tiff_lzw")
    if features.check("avif"):
        add("lossy.avif", Image.fromarray(smooth[:, :, :3]), exif=exif)
    for name, values, how in (
        ("wide16.tiff", noise[:, :, :3].astype(np.uint16) * 257, {"compression": "zlib", "predictor": True}),
        ("alpha16.tiff", noise.astype(np.uint16) * 257, {"extrasamples": ["unassalpha"]}),
        ("planes.tiff", noise.astype(np.uint16).transpose(2, 0, 1).copy(), {"planarconfig": "separate"}),
        ("float.tiff", noise[:, :, :3].astype(np.float32) / 255, {"compression": "lzw", "rowsperstrip": 5}),
        ("tiles.tiff", noise[:, :, :3], {"tile": (16, 16), "compression": "packbits"}),
    ):
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, photometric="rgb", **how)
        files[name] = stream.getvalue()
    import imagecodecs

    files["wide16.png"] = imagecodecs.png_encode(noise[:, :, :3].astype(np.uint16) * 257)
    return files


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """One to a few of: bytes changed, a piece cut out, repeated, zeroed or moved; the end cut off; numbers extreme."""
    content = bytearray(data)
    for _ in range(int(random.integers(1, 3))):
        place = int(random.integers(0, len(content)))
        if random.random() < 0.3:  # headers matter most
            place = min(place, int(random.integers(0, 200)), len(content) - 1)
        length = int(random.integers(1, 20))
        kind = int(random.integers(0, 7))
        if kind == 0:
            content[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            content[place : place + length] = random.bytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            content[place : place + length] = bytes(length)
        elif kind == 5:
            content[place : place + 4] = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"][place % 3]
        else:
            del content[max(place, 30) :]
        if not content:
            content = bytearray(b"\0")
    return bytes(content)


def run(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Mutate ``count`` files and read them in another process."""
    good = sorted(sources().items())
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        name, data = good[number % len(good)]
        (folder / f"{number:04d}_{name}").write_bytes(mutated(data, random))
    command = [sys.executable, "-c", READ_ALL, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    noise = [line for line in done.stderr.splitlines() if not (folder / line).is_file()]
    assert noise == []
    return json.loads(done.stdout)


def test_good_files_are_read_as_pillow_does(tmp_path: Path) -> None:
    for name, data in sources().items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, timeout=SECONDS, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["refused"] == 0
    # Pillow reads neither planes nor floats in colour, and CMYK is compared elsewhere
    assert counts["compared"] == len(sources()) - 3


def test_a_few_mutated_files(tmp_path: Path) -> None:
    counts = run(tmp_path / "files", 60, 0)
    assert counts["read"] + counts["refused"] == 60
    assert counts["compared"] > 0


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path) -> None:
    total: dict[str, int] = {}
    for share in range(SHARES):
        counts = run(tmp_path / f"files{share}", 2000 // SHARES, 100 + share)
        total = {name: total.get(name, 0) + count for name, count in counts.items()}
    print(total)
    assert total["read"] + total["refused"] == 2000
    assert total["compared"] > 200
