"""Data sets by name: from a local server to the folders of the option files, with the lock file in between."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mambair.data_tools.catalogue import DATASETS, SUITES, Part, RemoteDataset, RemoteFile, datasets_of
from mambair.data_tools.dataset_download import DatasetDownloads
from mambair.system.errors import RequestError
from mambair.system.lock_file import LOCK_NAME, LockError, LockFile


def archive_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """The address of a local server, its files (to be filled and changed), and the paths it was asked for."""
    monkeypatch.setenv("no_proxy", "*")
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            asked.append(name)
            self.send_response(200 if name in files else 404)
            self.send_header("Content-Length", str(len(files.get(name, b""))))
            self.end_headers()
            self.wfile.write(files.get(name, b""))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", files, asked
        server.shutdown()
        thread.join()


def small_dataset(address: str, content: bytes | None = None) -> RemoteDataset:
    """Two images and their reductions in one archive; with ``content`` its checksum is stated."""
    stated = {}
    if content is not None:
        stated = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "stated_at": "a page"}
    file = RemoteFile(f"{address}/set.zip", "set.zip", **stated)
    parts = (Part(file, "Set/HR", "Set/HR", 2), Part(file, "Set/LR/X4", "Set/LR_bicubic/X4", 2, scale=4))
    return RemoteDataset("Set", "two images", "a page", parts)


IMAGES = {f"Set/{folder}/{name}.png": f"{folder} {name}".encode() for folder in ("HR", "LR/X4") for name in "ab"}


def downloads(root: Path, **arguments: object) -> DatasetDownloads:
    return DatasetDownloads(root, attempts=2, pause=0.0, **arguments)  # type: ignore[arg-type]


def test_fetched_unpacked_and_not_fetched_again(web: tuple, tmp_path: Path) -> None:
    address, files, asked = web
    files["set.zip"] = archive_of(IMAGES)
    outcome = downloads(tmp_path).obtain(small_dataset(address))
    assert not outcome.failed and len(outcome.done) == 2
    assert (tmp_path / "Set/HR/a.png").read_bytes() == b"HR a"
    assert (tmp_path / "Set/LR_bicubic/X4/b.png").read_bytes() == b"LR/X4 b"
    again = downloads(tmp_path).obtain(small_dataset(address))
    assert not again.failed and all("there already" in line for line in again.done)
    assert asked == ["set.zip"]


def test_scales_and_archives_can_be_left_out(web: tuple, tmp_path: Path) -> None:
    address, files, _ = web
    files["set.zip"] = archive_of(IMAGES)
    made = downloads(tmp_path, scales=())
    assert not made.obtain(small_dataset(address)).failed
    made.remove_archives()
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.is_file()) == ["a.png", "b.png", LOCK_NAME]


def test_the_first_download_is_what_later_ones_must_be(web: tuple, tmp_path: Path) -> None:
    address, files, _ = web
    first = files["set.zip"] = archive_of(IMAGES)
    made = downloads(tmp_path)
    assert not made.obtain(small_dataset(address)).failed
    made.remove_archives()
    entry = json.loads((tmp_path / LOCK_NAME).read_text())["files"]["set.zip"]
    assert (entry["sha256"], entry["size"]) == (hashlib.sha256(first).hexdigest(), len(first))
    (tmp_path / "Set/HR/a.png").unlink()
    files["set.zip"] = archive_of({**IMAGES, "Set/HR/a.png": b"another"})
    (failure,) = downloads(tmp_path).obtain(small_dataset(address)).failed
    assert "not the file that was first fetched" in failure
    assert not (tmp_path / "Set/HR/a.png").exists()
    assert [path.name for path in (tmp_path / ".downloads").iterdir()] == ["set.zip.rejected"]
    files["set.zip"] = first
    assert not downloads(tmp_path).obtain(small_dataset(address)).failed


def test_a_stated_checksum_rejects_a_corrupted_download(web: tuple, tmp_path: Path) -> None:
    address, files, _ = web
    right = archive_of(IMAGES)
    files["set.zip"] = right[:50] + bytes([right[50] ^ 1]) + right[51:]
    (failure,) = downloads(tmp_path).obtain(small_dataset(address, right)).failed
    assert "sha256" in failure and "stated at a page" in failure
    assert not (tmp_path / "Set").exists() and not LockFile(tmp_path / LOCK_NAME).sha256("set.zip")
    files["set.zip"] = right
    assert not downloads(tmp_path).obtain(small_dataset(address, right)).failed


def test_an_archive_put_there_by_hand_is_compared_and_never_touched(web: tuple, tmp_path: Path) -> None:
    address, _, asked = web
    archive = tmp_path / ".downloads" / "set.zip"
    archive.parent.mkdir()
    archive.write_bytes(b"something else")
    assert downloads(tmp_path).obtain(small_dataset(address, archive_of(IMAGES))).failed
    assert archive.read_bytes() == b"something else"
    archive.write_bytes(archive_of(IMAGES))
    assert not downloads(tmp_path).obtain(small_dataset(address, archive_of(IMAGES))).failed
    assert not asked


def test_missing_images_are_counted(web: tuple, tmp_path: Path) -> None:
    address, files, _ = web
    files["set.zip"] = archive_of({"Set/HR/a.png": b"one", "Set/Other/b.png": b"two"})
    (failure,) = downloads(tmp_path).obtain(small_dataset(address)).failed
    assert "1 images in Set/HR, expected 2; it holds Set/HR, Set/Other" in failure


def test_single_images_and_one_that_is_gone(web: tuple, tmp_path: Path) -> None:
    address, files, asked = web
    files["a.png"] = b"picture"
    parts = tuple(
        Part(RemoteFile(f"{address}/{name}", f"Few/{name}"), None, "Few/HQ", 1) for name in ("a.png", "b.png")
    )
    outcome = downloads(tmp_path).obtain(RemoteDataset("Few", "", "", parts))
    assert (tmp_path / "Few/HQ/a.png").read_bytes() == b"picture"
    assert len(outcome.done) == 1 and "404" in outcome.failed[0]
    files["b.png"] = b"other"
    assert not downloads(tmp_path).obtain(RemoteDataset("Few", "", "", parts)).failed
    assert asked == ["a.png", "b.png", "b.png"]


def test_what_a_program_cannot_fetch_says_how(tmp_path: Path) -> None:
    (failure,) = downloads(tmp_path).obtain(DATASETS["Manga109"]).failed
    assert "on request" in failure and "manga109.org" in failure


def test_a_damaged_lock_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text('{"files": [')
    with pytest.raises(LockError, match="cannot be read"):
        downloads(tmp_path)


def test_catalogue_is_consistent() -> None:
    assert all(set(names) <= set(DATASETS) for names in SUITES.values())
    by_name: dict[str, RemoteFile] = {}
    for dataset in DATASETS.values():
        assert dataset.page.startswith("http") and (dataset.parts or dataset.by_hand), dataset.name
        for part in dataset.parts:
            assert by_name.setdefault(part.file.name, part.file) == part.file
            assert part.file.sha256 is None or len(part.file.sha256) == 64
            assert not Path(part.folder).is_absolute()
            if part.prefix is None:
                assert Path(part.file.name).name == Path(part.file.url).name
    assert sum(part.images for part in DATASETS["LIVE1"].parts) == 29
    assert sum(part.images for part in DATASETS["DF2K"].parts if part.folder == "DF2K/HR") == 3450
    assert sum(part.images for part in DATASETS["DFWB"].parts) == 3850


def test_the_option_files_look_where_downloads_go(repository: Path) -> None:
    """Every folder of a published recipe is filled by this module, or is had by hand only, or the user's own."""
    named = re.compile(r"^ *dataroot_(?:gt|lq): *(?:datasets/)([^ #\n]+)", re.MULTILINE)
    wanted = {
        folder
        for path in (repository / "options").rglob("*.yml")
        for folder in named.findall(path.read_text(encoding="utf-8"))
        if not folder.startswith(("example/", "SIDD/", "DND/", "Manga109/", "train_images", "val_images"))
    }
    filled = {part.folder for dataset in DATASETS.values() for part in dataset.parts}
    assert len(wanted) > 20 and wanted <= filled, wanted - filled


def test_names_suites_and_mistakes() -> None:
    expected = ["DIV2K", "CBSD68", "Kodak24", "McMaster", "Urban100"]
    for suite in ("DN", "color-dn", "Color-DN"):
        assert [dataset.name for dataset in datasets_of(["div2k", suite, "Kodak24"])] == expected
    with pytest.raises(RequestError, match=r"unknown data set Set6, x; did you mean 'Set\d+'\?; there are DIV2K"):
        datasets_of(["Set5", "Set6", "x"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("ftp://host/x", "x"), "http or https"), (("https://host/x", "x", 5), "needs stated_at")],
    ids=["address", "checksum of unknown origin"],
)
def test_an_entry_says_where_its_numbers_come_from(arguments: tuple, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RemoteFile(*arguments)
