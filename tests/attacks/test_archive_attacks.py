"""Hostile archives: each is built here and has its outcome; bombs take little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.data_tools import archives
from mambair.data_tools.archives import unpack

ESCAPE = "\x1b]0;owned\x07"
DIGITS = "9" * 5000
Attack = Callable[[Path, pytest.MonkeyPatch], str]
OutcomeOf = Callable[[Attack], str]


def unpacked(archive: Path) -> str:
    folder = archive.parent / "out"
    try:
        return str(unpack(archive, {"Set": folder}))
    finally:
        assert not folder.exists()


def zipped(folder: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(folder / "archive", "w", method) as made:
        for name, content in members:
            made.writestr(name, content)
    return unpacked(folder / "archive")


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def record(key: str, value: str) -> bytes:
    """One record of a PAX header."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(f"{length}{rest}") != length:
        length += 1
    return f"{length}{rest}".encode()


def extension(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", len(content), kind) + padded(content)


def tarred(folder: Path, *blocks: bytes) -> str:
    with gzip.open(folder / "archive", "wb", compresslevel=1) as made:
        for block in blocks:
            made.write(block)
    return unpacked(folder / "archive")


def zip_path_upwards(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, ("Set/../../private.txt", b"x"))


def zip_absolute_path(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, (str(folder / "private.txt"), b"x"))


def zip_path_of_windows(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, ("Set\\..\\..\\private.png", b"x"), ("C:/private.png", b"x"))


def zip_escape_in_a_name(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, (f"Set/{ESCAPE}.png", b"x"))


def zip_name_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, ("a/" * 20_000 + "b.png", b"x"))


def zip_link(folder: Path, patch: pytest.MonkeyPatch) -> str:
    info = zipfile.ZipInfo("Set/a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped(folder, (info, str(folder / "private.txt").encode()))


def zip_bomb(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, ("Set/a.png", bytes(2**27)))


def zip_bomb_of_bzip2(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return zipped(folder, ("Set/a.png", bytes(2**20)), method=zipfile.ZIP_BZIP2)


def zip_with_too_many_folders(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(archives, "MAX_MEMBERS", 1000)
    return zipped(folder, *((f"{number}/", b"") for number in range(1001)))


def zip_with_a_long_directory(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(archives, "MAX_ZIP_DIRECTORY", 60_000)
    return zipped(folder, *((f"Set/{number}.png", b"x") for number in range(1500)))


def zip_in_a_zip(folder: Path, patch: pytest.MonkeyPatch) -> str:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        made.writestr("a.png", b"x")
    return zipped(folder, ("Set/inner.zip", inner.getvalue()))


def special(folder: Path, kind: bytes) -> str:
    info = tarfile.TarInfo("Set/a.png")
    info.type, info.linkname = kind, str(folder / "private.txt")
    return tarred(folder, info.tobuf(tarfile.GNU_FORMAT))


def tar_link(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return special(folder, tarfile.SYMTYPE)


def tar_hard_link(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return special(folder, tarfile.LNKTYPE)


def tar_pipe(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return special(folder, tarfile.FIFOTYPE)


def tar_device(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return special(folder, tarfile.CHRTYPE)


def tar_sparse(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return special(folder, tarfile.GNUTYPE_SPARSE)


def tar_path_upwards(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, header("../private.txt", 1), padded(b"x"))


def tar_with_too_many_folders(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(archives, "MAX_MEMBERS", 1000)
    return tarred(folder, header("Set", 0, tarfile.DIRTYPE) * 40_000)


def tar_bomb(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, header("Set/a.png", 2**27), bytes(2**27))


def tar_that_announces_too_much(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, header("Set/a.png", 2**40))


def tar_with_a_long_pax_header(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, header("pax", 2**27, tarfile.XHDTYPE), bytes(2**27), header("Set/a.png", 0))


def tar_with_a_long_name(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, header("name", 2**27, tarfile.GNUTYPE_LONGNAME), b"a" * 2**27, header("Set/a.png", 0))


def tar_with_a_chain_of_headers(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, extension(record("comment", "x")) * 5000, header("Set/a.png", 0))


def tar_with_many_global_records(folder: Path, patch: pytest.MonkeyPatch) -> str:
    records = b"".join(record(f"key{number}", "") for number in range(2000))
    return tarred(folder, extension(records, tarfile.XGLTYPE), header("Set/a.png", 0))


def tar_of_negative_size(folder: Path, patch: pytest.MonkeyPatch) -> str:
    block = bytearray(header("Set/a.png", 0))
    block[124:136] = (b"\xff" * 12)[:11] + b"\x00"  # base 256: -256
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return tarred(folder, bytes(block) * 2)


def tar_of_negative_pax_size(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, extension(record("size", "-1024")), header("Set/a.png", 0))


def tar_with_a_long_number(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, extension(f"{DIGITS} a=b\n".encode()), header("Set/a.png", 0))


def tar_sparse_map_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    records = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
    return tarred(folder, extension(records), header("Set/a.png", 2**20), b"999999\n", b"1" * 2**20)


def no_archive_but_gzip(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return tarred(folder, b"x" * 2000)


def bzip2_bomb(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "archive").write_bytes(bz2.compress(header("Set/a.png", 2**27) + bytes(2**27)))
    return unpacked(folder / "archive")


ATTACKS: dict[Attack, str] = {
    zip_path_upwards: "leads elsewhere; nothing was unpacked",
    zip_absolute_path: "leads elsewhere",
    zip_path_of_windows: "leads elsewhere",
    zip_escape_in_a_name: r"'Set/\\x1b\]0;owned\\x07\.png' is a path that leads elsewhere",
    zip_name_without_end: "a name of 40005 characters, .* is too long",
    zip_link: "is a link or a device",
    zip_bomb: "would unpack to more than",
    zip_bomb_of_bzip2: "packed by another method than deflate",
    zip_with_too_many_folders: "more than the 1000 files and folders",
    zip_with_a_long_directory: "a header of it is longer than any data set has",
    zip_in_a_zip: r"^\{'Set': 0\}$",
    tar_link: "is a link, a device or sparse",
    tar_hard_link: "is a link, a device or sparse",
    tar_pipe: "is a link, a device or sparse",
    tar_device: "is a link, a device or sparse",
    tar_sparse: "is a link, a device or sparse",
    tar_path_upwards: "leads elsewhere",
    tar_with_too_many_folders: "more than the 1000 files and folders",
    tar_bomb: "would unpack to more than",
    tar_that_announces_too_much: "would unpack to more than",
    tar_with_a_long_pax_header: "a header of it is longer than any data set has",
    tar_with_a_long_name: "a header of it is longer than any data set has",
    tar_with_a_chain_of_headers: "a header of it is longer than any data set has",
    tar_with_many_global_records: "more than 100 global records",
    tar_of_negative_size: "would unpack to more than|damaged",
    tar_of_negative_pax_size: "would unpack to more than",
    tar_with_a_long_number: "is damaged",
    tar_sparse_map_without_end: "a header of it is longer|damaged|sparse",
    no_archive_but_gzip: "is no zip or tar archive, or is damaged",
    bzip2_bomb: "would unpack to more than",
}


@pytest.mark.parametrize(("attack", "outcome"), ATTACKS.items(), ids=[each.__name__ for each in ATTACKS])
def test_archives(attack: Attack, outcome: str, outcome_of: OutcomeOf) -> None:
    text = outcome_of(attack)
    assert text.startswith("DatasetError: ") or attack is zip_in_a_zip
    assert re.search(outcome, text)


MEASURED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from mambair.data_tools.archives import unpack
from mambair.data.pairing import DatasetError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[1]), {"Set": Path("nowhere")})
except DatasetError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize(
    "bomb",
    [zip_bomb, tar_bomb, bzip2_bomb, tar_with_a_long_pax_header, tar_with_a_long_name, tar_with_a_chain_of_headers],
    ids=lambda bomb: bomb.__name__,
)
def test_bombs_take_little_memory(bomb: Attack, outcome_of: OutcomeOf, tmp_path: Path, repository: Path) -> None:
    outcome_of(bomb)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "archive"), str(repository)]
    kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kib < 32 * 1024  # the bombs hold 128 MiB; tarfile, the decompressor and lists of members need a few
