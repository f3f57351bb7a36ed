"""Unpacking: the images that were asked for and nothing else, out of well-meant and ill-meant archives."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from mambair.data.pairing import DatasetError
from mambair.data_tools import archives
from mambair.data_tools.archives import top_folders, unpack

FILES = {
    "Set/HR/a.png": b"first",
    "Set/HR/below/b.PNG": b"second",
    "Set/HR/notes.txt": b"no image",
    "Set/HR/._a.png": b"shadow",
    "Set/LR/a.png": b"low",
    "Set/HR2/c.png": b"a folder whose name begins alike",
    "__MACOSX/Set/HR/a.png": b"shadow",
}


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def make_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "zip": make_zip,
    "tar": make_tar,
    "tgz": lambda path, files: make_tar(path, files, "w:gz"),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[Path, Mapping[str, bytes]], Path]:
    return MAKERS[request.param]


def test_chosen_images_only(make: Callable, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", FILES)
    counts = unpack(archive, {"Set/HR": tmp_path / "out" / "HR", "Set/LR": tmp_path / "out" / "LR"})
    assert counts == {"Set/HR": 2, "Set/LR": 1}
    made = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert made == {"HR/a.png": b"first", "HR/below/b.PNG": b"second", "LR/a.png": b"low"}


def test_what_is_there_is_left_alone_and_what_is_torn_is_mended(make: Callable, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", FILES)
    unpack(archive, {"Set/HR": tmp_path / "out"})
    kept = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    (tmp_path / "out" / "below" / "b.PNG").write_bytes(b"sec")
    assert unpack(archive, {"Set/HR": tmp_path / "out"}) == {"Set/HR": 2}
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "below" / "b.PNG").read_bytes() == b"second"


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "Set/../../evil.png", "Set\\..\\evil.png", "C:/evil.png"])
def test_paths_that_lead_elsewhere_unpack_nothing(make: Callable, tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / "archive", {**FILES, name: b"evil"})
    with pytest.raises(DatasetError, match="leads elsewhere; nothing was unpacked"):
        unpack(archive, {"Set/HR": tmp_path / "out"})
    assert [path.name for path in tmp_path.rglob("*")] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "archive", "w") as made:
        info = tarfile.TarInfo("Set/HR/a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        made.addfile(info)
    with pytest.raises(DatasetError, match="link, a device"):
        unpack(tmp_path / "archive", {"Set/HR": tmp_path / "out"})


def test_links_in_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("Set/HR/a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as made:
        made.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="link or a device"):
        unpack(tmp_path / "archive", {"Set/HR": tmp_path / "out"})


def test_a_link_that_lies_there_is_not_followed_out(make: Callable, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "below").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="leads out of"):
        unpack(make(tmp_path / "archive", FILES), {"Set/HR": tmp_path / "out"})
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_bombs_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archives, "FREE_GROWTH", 2**16)
    archive = MAKERS[kind](tmp_path / "archive", {"Set/HR/a.png": bytes(2**20), "Set/HR/b.png": bytes(2**20)})
    with pytest.raises(DatasetError, match="would unpack to"):
        unpack(archive, {"Set/HR": tmp_path / "out"})
    assert not (tmp_path / "out").exists()


def test_too_many_files(make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(DatasetError, match="files"):
        unpack(make(tmp_path / "archive", FILES), {"Set/HR": tmp_path / "out"})


def test_room_is_needed_for_what_is_missing_only(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(tmp_path / "archive", {"Set/HR/a.png": b"12345678", "Set/LR/a.png": bytes(1000)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    assert unpack(archive, {"Set/HR": tmp_path / "out"}) == {"Set/HR": 1}
    with pytest.raises(DatasetError, match="needs 1000 bytes, and the disk has 10 free"):
        unpack(archive, {"Set/HR": tmp_path / "out", "Set/LR": tmp_path / "low"})


def test_damage_is_named_and_leaves_no_half_image(make: Callable, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"Set/HR/a.png": bytes(range(256)) * 300})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 3])
    with pytest.raises(DatasetError, match="archive"):
        unpack(archive, {"Set/HR": tmp_path / "out"})
    assert not list((tmp_path / "out").rglob("*"))


def test_a_wrong_checksum_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as made:  # stored: the content stands in the file as it is
        made.writestr("Set/HR/a.png", b"content")
    data = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(data.replace(b"content", b"CONTENT"))
    with pytest.raises(DatasetError, match=r"a\.png is damaged"):
        unpack(tmp_path / "archive", {"Set/HR": tmp_path / "out"})
    assert not list((tmp_path / "out").iterdir())


def test_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"<html>not found</html>")
    with pytest.raises(DatasetError, match="no zip or tar archive"):
        unpack(tmp_path / "archive", {})


def test_top_folders_tell_what_there_is(make: Callable, tmp_path: Path) -> None:
    assert "Set/HR2" in top_folders(make(tmp_path / "archive", FILES))
