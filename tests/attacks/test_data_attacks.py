"""Hostile data sets: what `data lint`, `data prepare` and readers of LMDBs make of names, pipes, links and bombs."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.data import main
from mambair.data.lmdb_store import DatasetError, LmdbReader, LmdbWriter
from mambair.data_tools.perceptual_hash import fingerprint
from mambair.images.files import DecodedImage, write_image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and names of POSIX")
ESCAPE = "\x1b]0;owned\x07"
PICTURE = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
Plant = Callable[[Path], object]


def picture(path: Path) -> Path:
    write_image(path.parent / "picture.png", DecodedImage(PICTURE))
    return (path.parent / "picture.png").rename(path)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


def device(folder: Path) -> None:
    (folder / "zero.png").symlink_to("/dev/zero")


def link_to_a_secret(folder: Path) -> None:
    (folder / "secret.png").symlink_to(folder.parent / "private.txt")


def link_to_itself(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")


def bomb(folder: Path) -> None:
    (folder / "bomb.pgm").write_bytes(b"P5 99999 99999 255\n")


def sparse_file(folder: Path) -> None:
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(2**40)


def escape_in_a_name(folder: Path) -> None:
    (folder / f"{ESCAPE}.png").write_bytes(b"no picture")


def line_end_in_a_name(folder: Path) -> None:
    (folder / "a\n0 made, 0 failed\n.png").write_bytes(b"no picture")


def name_of_broken_bytes(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"no picture")


FAULTS: dict[Plant, str] = {
    pipe: r"pipe\.png: is not a regular file",
    device: r"zero\.png: is not a regular file",
    link_to_a_secret: r"secret\.png: is no image|secret\.png: .*not an image",
    link_to_itself: r"loop\.png: (cannot be read|is a broken link)",
    bomb: r"bomb\.pgm: .*pixels",
    sparse_file: r"sparse\.png: has more than \d+ bytes",
    escape_in_a_name: r"\\x1b\]0;owned\\x07\.png: ",
    line_end_in_a_name: r"a\\n0 made, 0 failed\\n\.png: ",
    name_of_broken_bytes: r"\\udcff\.png: ",
}
COMMANDS = {
    "lint": (["lint", "--gt", "in"], "fault: unreadable: "),
    "sub-images": (["prepare", "sub-images", "in", "out", "--size", "8", "--step", "4"], "failed: "),
    "reductions": (["prepare", "lr", "in", "out", "--scale", "2"], "failed: "),
    "lmdb": (["prepare", "lmdb", "in", "out.lmdb"], "failed: "),
    "meta-info": (["prepare", "meta-info", "in", "out.txt"], "failed: "),
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_hostile_file_is_one_line(
    command: str, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "good.png")
    plant(tmp_path / "in")
    arguments, begin = COMMANDS[command]
    assert main([*arguments, "--workers", "1", "--quiet"]) == 1
    output, errors = capsys.readouterr()
    (line,) = [line for line in (output + errors).split("\n") if line.startswith(begin)]
    assert re.search(FAULTS[plant], line)
    assert all(each.isprintable() for each in (output + errors).split("\n"))


TEMPLATES = [
    "x",
    "{}{}",
    "{}{x}",
    "{}{",
    "{:>99999999999}{}",
    "{0.__class__}",
    "../{}",
    "{}/../../x",
    "/x/{}",
    r"..\\{}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("command", [["lint", "--gt", "in"], COMMANDS["reductions"][0], COMMANDS["sub-images"][0]])
def test_templates_of_names(command: list[str], template: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--filename-tmpl", template])
    assert "expected a name with {}, once, for that of the ground truth, got" in capsys.readouterr().err


def data_link(folder: Path) -> None:
    (folder / "out.lmdb.partial").mkdir()
    (folder / "out.lmdb.partial" / "data.mdb").symlink_to(folder / "private.txt")


def lock_link(folder: Path) -> None:
    (folder / "out.lmdb.partial").mkdir()
    (folder / "out.lmdb.partial" / "lock.mdb").symlink_to(folder / "private.txt")


def lock_hard_link(folder: Path) -> None:
    (folder / "out.lmdb.partial").mkdir()
    (folder / "out.lmdb.partial" / "lock.mdb").hardlink_to(folder / "private.txt")


def data_link_to_nothing(folder: Path) -> None:
    (folder / "out.lmdb.partial").mkdir()
    (folder / "out.lmdb.partial" / "data.mdb").symlink_to(folder / "elsewhere" / "new")


def journal_pipe(folder: Path) -> None:
    (folder / "out.lmdb.partial").mkdir()
    os.mkfifo(folder / "out.lmdb.partial" / "journal.txt")


def partial_link(folder: Path) -> None:
    (folder / "out.lmdb.partial").symlink_to(folder / "elsewhere")


def sub_image_link(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / ".prepare_data.json").write_text('{"source": "elsewhere"}')


def settings_pipe(folder: Path) -> None:
    (folder / "out").mkdir()
    os.mkfifo(folder / "out" / ".prepare_data.json")


def settings_link(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / ".prepare_data.json").symlink_to(folder / "private.txt")


def list_link(folder: Path) -> None:
    (folder / "out.txt").symlink_to(folder / "private.txt")


DONE = "1 made, 0 there already, 0 failed"
PLANTED: list[tuple[str, Plant, str]] = [
    ("lmdb", data_link, DONE),
    ("lmdb", lock_link, DONE),
    ("lmdb", lock_hard_link, DONE),
    ("lmdb", data_link_to_nothing, DONE),
    ("lmdb", journal_pipe, DONE),
    ("lmdb", partial_link, "out.lmdb.partial is a link, where a folder is expected; remove it"),
    ("sub-images", sub_image_link, "out was made with other settings"),
    ("sub-images", settings_pipe, DONE),
    ("sub-images", settings_link, "out was made with other settings"),
    ("meta-info", list_link, DONE),
]


@pytest.mark.parametrize(("command", "plant", "outcome"), PLANTED, ids=[plant.__name__ for _, plant, _ in PLANTED])
def test_what_is_planted_where_prepare_writes(
    command: str,
    plant: Plant,
    outcome: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
    picture(tmp_path / "in" / "good.png")
    plant(tmp_path)
    main([*COMMANDS[command][0], "--workers", "1", "--quiet"])
    assert outcome in "".join(capsys.readouterr())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("shape", [(1, 2**24, 1), (2**24, 1, 1), (2**13, 2**11, 3)])
def test_a_line_of_pixels_takes_little_memory_to_compare(shape: tuple[int, int, int]) -> None:
    pixels = np.zeros(shape, dtype=np.uint8)
    tracemalloc.start()
    try:
        fingerprint(pixels)
        assert tracemalloc.get_traced_memory()[1] < 16 * pixels[..., 0].size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.8])
def test_a_database_that_was_cut_short_is_an_error(share: float, tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        for number in range(20):
            writer.put(f"{number}", bytes(20_000), 1, 1, 1)
    data = tmp_path / "a.lmdb" / "data.mdb"
    os.truncate(data, int(share * data.stat().st_size) // 4096 * 4096)
    with pytest.raises(DatasetError, match=r"it was cut short|it may be damaged"):
        LmdbReader(tmp_path / "a.lmdb").get("19")
