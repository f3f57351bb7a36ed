"""The gate of folders: whatever stands at a name, nothing outside is written, and nothing is waited for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mambair.system.path_gate import Folder, UnsafePathError, open_folder

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="makes links and pipes"),
    pytest.mark.usefixtures("any_system"),
]

Make = Callable[[Path, Path], object]  # at this path, something that leads to that private file
WAYS: dict[str, Make] = {
    "link": lambda path, private: path.symlink_to(private),
    "dangling link": lambda path, private: path.symlink_to(private.with_name("new")),
    "hard link": lambda path, private: path.hardlink_to(private),
    "folder": lambda path, private: path.mkdir(),
    "pipe": lambda path, private: os.mkfifo(path),
    "device": lambda path, private: path.symlink_to("/dev/null"),
}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside" / "private").write_text("mine")
    return tmp_path / "outside" / "private"


def untouched(private: Path) -> bool:
    return private.read_text() == "mine" and [path.name for path in private.parent.iterdir()] == ["private"]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("link", "name is a link, where a regular file is expected; remove it"),
        ("dangling link", "name is a link, where a regular file is expected; remove it"),
        ("hard link", "name is a hard link to another file; remove it"),
        ("folder", "name is a folder, where a regular file is expected; remove it"),
        ("pipe", "name is a named pipe, where a regular file is expected; remove it"),
        ("device", "name is a link, where a regular file is expected; remove it"),
    ],
)
def test_what_is_opened_is_a_regular_file(way: str, message: str, private: Path, tmp_path: Path) -> None:
    WAYS[way](tmp_path / "inside" / "name", private)
    with open_folder(tmp_path / "inside") as folder, pytest.raises(UnsafePathError) as caught:
        folder.open_file("name", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    assert str(caught.value) == f"{tmp_path / 'inside'}/{message}"
    assert untouched(private)


@pytest.mark.parametrize("way", ["link", "pipe"])
def test_what_is_planted_between_looking_and_opening_is_not_followed(
    way: str, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](tmp_path / "inside" / "name", private)
    monkeypatch.setattr(Folder, "_refuse", lambda self, name, kind: None)  # the look came before
    with (
        open_folder(tmp_path / "inside") as folder,
        pytest.raises(OSError, match=r"symbolic links|is no regular|became a link"),
    ):
        folder.open_file("name", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    assert untouched(private)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_created_replaces_all_but_folders(way: str, private: Path, tmp_path: Path) -> None:
    WAYS[way](tmp_path / "inside" / "name", private)
    with open_folder(tmp_path / "inside") as folder:
        if way == "folder":
            with pytest.raises(UnsafePathError, match="name is a folder, where a file is to be written"):
                folder.create("name")
        else:
            descriptor = folder.create("name")
            os.write(descriptor, b"ours")
            os.close(descriptor)
            assert (tmp_path / "inside" / "name").read_text() == "ours"
    assert untouched(private)


@pytest.mark.parametrize("way", WAYS)
def test_a_rename_replaces_all_but_folders(way: str, private: Path, tmp_path: Path) -> None:
    WAYS[way](tmp_path / "inside" / "name", private)
    with open_folder(tmp_path / "inside") as folder:
        descriptor = folder.create("new")
        status = os.fstat(descriptor)
        os.close(descriptor)
        if way == "folder":
            with pytest.raises(UnsafePathError, match="name is a folder"):
                folder.rename("new", "name", status)
        else:
            folder.rename("new", "name", status)
            assert os.path.samestat((tmp_path / "inside" / "name").lstat(), status)
    assert untouched(private)


def test_a_file_that_was_replaced_meanwhile_gets_no_name(private: Path, tmp_path: Path) -> None:
    with open_folder(tmp_path / "inside") as folder:
        descriptor = folder.create("new")
        status = os.fstat(descriptor)
        (tmp_path / "inside" / "new").unlink()
        (tmp_path / "inside" / "new").symlink_to(private)
        with pytest.raises(UnsafePathError, match="new was replaced while it was written"):
            folder.rename("new", "name", status)
        folder.remove("new", status)
        os.close(descriptor)
    assert [path.name for path in (tmp_path / "inside").iterdir()] == ["new"], "what is not ours is not removed"
    assert untouched(private)


FOLDERS: dict[str, tuple[Callable[[Path, Path], object], str | None]] = {
    "missing": (lambda inside, outside: None, None),
    "link out": (lambda inside, outside: (inside / "a").symlink_to(outside), "leads out of it"),
    "dangling link out": (lambda inside, outside: (inside / "a").symlink_to(outside / "new"), "leads out of it"),
    "link up": (lambda inside, outside: (inside / "a").symlink_to(".."), "leads out of it"),
    "loop": (lambda inside, outside: (inside / "a").symlink_to("a"), "a is a link, where a folder is expected"),
    "link within": (lambda inside, outside: (inside / "a").symlink_to("c"), None),
    "file": (lambda inside, outside: (inside / "a").touch(), "a is a regular file, where a folder is expected"),
    "pipe": (lambda inside, outside: os.mkfifo(inside / "a"), "a is a named pipe, where a folder is expected"),
}


@pytest.mark.parametrize(("make", "message"), FOLDERS.values(), ids=FOLDERS)
def test_no_link_leads_out(make: Make, message: str | None, private: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    make(inside, private.parent)
    if message is None:
        with open_folder(inside / "a" / "b", within=inside) as folder:
            os.close(folder.create("name"))
        assert (inside / "a" / "b" / "name").is_file()
    else:
        with pytest.raises(UnsafePathError, match=message):
            open_folder(inside / "a" / "b", within=inside)
    assert untouched(private)


def test_a_link_planted_after_the_look_is_not_followed(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_system: str
) -> None:
    inside, enter = tmp_path / "inside", Folder.enter

    def plant(self: Folder, name: str, *, make: bool) -> Folder:
        if name == "b":
            (inside / "a").rename(inside / "moved")
            (inside / "a").symlink_to(private.parent)
        return enter(self, name, make=make)

    monkeypatch.setattr(Folder, "enter", plant)
    if any_system == "Windows":
        with pytest.raises(UnsafePathError, match="a was replaced by another folder meanwhile"):
            open_folder(inside / "a" / "b", within=inside)
    else:
        with open_folder(inside / "a" / "b", within=inside) as folder:
            os.close(folder.create("name"))
        assert (inside / "moved" / "b" / "name").is_file()
    assert untouched(private)


def test_the_named_folder_may_be_a_link(private: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(tmp_path / "inside")
    with open_folder(tmp_path / "named" / "a", within=tmp_path / "named") as folder:
        os.close(folder.create("name"))
    assert (tmp_path / "inside" / "a" / "name").is_file()


def test_descriptors_are_closed(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list descriptors")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with open_folder(tmp_path / "a" / "b" / "c", within=tmp_path) as folder:
            os.close(folder.create("name"))
            with pytest.raises(UnsafePathError, match="name is a regular file, where a folder"):
                folder.enter("name", make=False)
        with pytest.raises(UnsafePathError, match="name is a regular file"):
            open_folder(tmp_path / "a" / "b" / "c" / "name", within=tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_errors_of_the_system_name_the_whole_path(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a") as folder:
        for call in (lambda: folder.open_file("b", os.O_RDONLY), lambda: folder.enter("b", make=False)):
            with pytest.raises(FileNotFoundError) as caught:
                call()
            assert str(caught.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'a' / 'b'}'"


RESERVED = ["CON", "nul.png", "com1", "LPT\u00b2.txt", "aux .png", "a.", "a ", "photo.png:stream", "a?", "a<b", "tab\t"]
PLAIN = ["con-1.png", "console.png", "com10", "nulls", "a.b", ".con", "ä è", "\u200b"]


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_windows_reserves(name: str, any_system: str, tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        os.close(folder.create("new"))
        calls = (
            lambda: os.close(folder.create(name)),
            lambda: os.close(folder.open_file(name, os.O_RDWR | os.O_CREAT)),
            lambda: folder.rename("new", name, (tmp_path / "new").stat()),
        )
        for call in calls:
            if any_system == "Windows":
                with pytest.raises(UnsafePathError, match="cannot be a file on Windows, which reserves that name"):
                    call()
            else:
                call()
    assert [path.name for path in tmp_path.iterdir()] == (["new"] if any_system == "Windows" else [name])


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_files(name: str, tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        os.close(folder.create(name))
    assert (tmp_path / name).is_file()


def test_a_junction_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "junction").mkdir()
    junction = SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=0xA0000003)
    with open_folder(tmp_path) as folder:
        monkeypatch.setattr(Folder, "status", lambda self, name: junction)
        with pytest.raises(UnsafePathError, match="junction is a link, where a folder is expected; remove it"):
            folder.enter("junction", make=False)
