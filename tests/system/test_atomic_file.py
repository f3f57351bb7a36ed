"""Atomic files: all or nothing, beside the target, with the permissions of a new file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.system.atomic_file import atomic_path, atomic_stream
from mambair.system.path_gate import UnsafePathError

pytestmark = pytest.mark.usefixtures("any_system")
posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes, permission bits")


@pytest.mark.parametrize("before", [None, b"old"], ids=["new", "replaced"])
def test_a_block_that_ends_well_replaces_the_file(before: bytes | None, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "weights.pth"
    if before is not None:
        target.parent.mkdir()
        target.write_bytes(before)
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent, "a rename is atomic only inside one file system"
        assert temporary.suffix == ".pth", "encoders choose the format by the suffix"
        temporary.write_bytes(b"new")
        assert (target.read_bytes() if before is not None else None) == before
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("before", [None, b"old"], ids=["new", "replaced"])
def test_a_block_that_raises_leaves_everything_as_it_was(before: bytes | None, tmp_path: Path) -> None:
    target = tmp_path / "weights.pth"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if before is None else [before])


@posix
def test_a_writer_that_makes_its_file_private_does_not_make_ours_private(tmp_path: Path, any_system: str) -> None:
    plain, target = tmp_path / "plain", tmp_path / "target"
    plain.touch()
    with atomic_path(target) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    is_kept = stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert is_kept == (any_system != "Windows"), "which has no permission bits"


def test_names_of_any_length_and_alphabet(tmp_path: Path) -> None:
    target = tmp_path / ("ж" * 120 + ".png")  # 244 bytes, 255 are the limit
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


@posix
@pytest.mark.parametrize("planted", ["link", "hard link", "pipe", "link to a folder"])
def test_what_is_planted_at_a_foreseeable_name_is_not_written_to(planted: str, tmp_path: Path) -> None:
    private, folder = tmp_path / "private", tmp_path / "folder"
    private.write_text("mine")
    folder.mkdir()
    name = folder / ".a.tag.tmp.png"
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: name.symlink_to(private),
        "hard link": lambda: name.hardlink_to(private),
        "pipe": lambda: os.mkfifo(name),
        "link to a folder": lambda: name.symlink_to(tmp_path),
    }
    makers[planted]()
    with atomic_stream(folder / "a.png", tag="tag") as stream:
        assert name.is_file() and not name.is_symlink()
        stream.write(b"ours")
    assert private.read_text() == "mine" and (folder / "a.png").read_bytes() == b"ours"
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@posix
@pytest.mark.parametrize("way", ["folder at the name", "folder at the temporary name"])
def test_a_folder_in_the_way_is_an_error(way: str, tmp_path: Path) -> None:
    (tmp_path / ("a.png" if way == "folder at the name" else ".a.tag.tmp.png")).mkdir()
    with pytest.raises(UnsafePathError, match="is a folder"), atomic_stream(tmp_path / "a.png", tag="tag") as stream:
        stream.write(b"ours")
    assert len(list(tmp_path.iterdir())) == 1


@posix
@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "nothing"])
def test_a_path_that_became_something_else_gets_no_name(kind: str, tmp_path: Path) -> None:
    private, folder = tmp_path / "private", tmp_path / "folder"
    private.write_text("mine")
    with pytest.raises(OSError) as caught, atomic_path(folder / "a.png") as temporary:
        temporary.unlink()
        if kind == "link":
            temporary.symlink_to(private)
        elif kind == "folder":
            temporary.mkdir()
        elif kind == "pipe":
            os.mkfifo(temporary)
    assert "is expected; remove it" in str(caught.value) or kind in ("nothing", "folder")
    assert private.read_text() == "mine" and not (folder / "a.png").exists()


def test_a_stream_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_stream(tmp_path / "a") as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


@posix
def test_temporary_names_of_paths_are_unforeseeable(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with atomic_path(tmp_path / "a.png") as temporary:
            names.add(temporary.name)
    assert len(names) == 3 and all(len(name.split(".")[2]) == 32 for name in names)
