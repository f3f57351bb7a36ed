"""LMDB: what is written is read, here and by basicsr; nothing that is not whole looks whole; workers open their own."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lmdb")

from mambair.data import lmdb_store
from mambair.data.lmdb_store import LmdbReader, LmdbWriter
from mambair.data.pairing import DatasetError
from mambair.registry import basicsr_installed, import_basicsr

needs_basicsr = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")
KEYS = ("0001", "Canon/0001", "Canon/scene 1/0002", "v1.5", "ümlaut")


def picture(seed: int, height: int = 6, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed: int, height: int = 6, width: int = 5) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(seed, height, width)).save(stream, "PNG")
    return stream.getvalue()


def fill(folder: Path, keys: tuple[str, ...] = KEYS) -> LmdbReader:
    with LmdbWriter(folder) as writer:
        for number, key in enumerate(keys):
            writer.put(key, png(number), 6, 5, 3)
    return LmdbReader(folder)


def test_what_is_put_is_got(tmp_path: Path) -> None:
    reader = fill(tmp_path / "new" / "a.lmdb")
    assert reader.keys() == sorted(KEYS)
    assert len(reader) == len(KEYS)
    for number, key in enumerate(KEYS):
        assert key in reader
        assert reader.get(key) == png(number)
        assert reader.entry(key) == (f"{key}.png", 6, 5, 3)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.lmdb"]
    assert "Canon/0001.png (6,5,3) 1\n" in (tmp_path / "new" / "a.lmdb" / "meta_info.txt").read_text()


def test_the_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "FIRST_MAP_BYTES", 2**14)
    monkeypatch.setattr(lmdb_store, "BATCH_BYTES", 50_000)
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        for number in range(60):
            writer.put(f"{number:04d}", bytes([number]) * 20_000, 1, 1, 1)
        writer.put("large", b"x" * 3_000_000, 1, 1, 1)
    reader = LmdbReader(tmp_path / "a.lmdb")
    assert [reader.get(f"{number:04d}") for number in range(60)] == [bytes([number]) * 20_000 for number in range(60)]
    assert reader.get("large") == b"x" * 3_000_000


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("", "must be a name"),
        ("/0001", "must be a name"),
        ("a//b", "must be a name"),
        ("../0001", "must be a name"),
        ("a\\b", "must be a name"),
        ("a\nb", "must be a name"),
        ("x" * 512, "has 512 bytes, at most 511"),
        ("0001", "is given twice"),
    ],
)
def test_keys_that_are_refused(tmp_path: Path, key: str, text: str) -> None:
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        writer.put("0001", b"x", 1, 1, 1)
        with pytest.raises(DatasetError, match=text):
            writer.put(key, b"x", 1, 1, 1)


def test_values_that_are_refused(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        writer.put("0001", b"x", 1, 1, 1)
        with pytest.raises(DatasetError, match="would be empty"):
            writer.put("a", b"", 1, 1, 1)
        with pytest.raises(DatasetError, match=r"must be one like \.png"):
            writer.put("a", b"x", 1, 1, 1, suffix="png")


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    fill(tmp_path / "a.lmdb")
    with pytest.raises(DatasetError, match="exists already"):
        LmdbWriter(tmp_path / "a.lmdb")


def test_an_interrupted_database_has_no_name_and_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "a.lmdb"
    with pytest.raises(KeyboardInterrupt), LmdbWriter(folder) as writer:
        writer.put("a/1", b"one", 1, 2, 3, suffix=".jpg")
        raise KeyboardInterrupt
    assert not folder.exists()
    with LmdbWriter(folder, resume=True) as writer:
        assert "a/1" in writer
        assert len(writer) == 1
        with pytest.raises(DatasetError, match="twice"):
            writer.put("a/1", b"one", 1, 2, 3)
        writer.put("b", b"two", 1, 1, 1)
    reader = LmdbReader(folder)
    assert reader.get("a/1") == b"one"
    assert reader.entry("a/1") == ("a/1.jpg", 1, 2, 3)
    assert reader.keys() == ["a/1", "b"]


def test_by_default_the_rest_of_an_interrupted_writer_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), LmdbWriter(tmp_path / "a.lmdb") as writer:
        writer.put("old", b"one", 1, 1, 1)
        raise ZeroDivisionError
    reader = fill(tmp_path / "a.lmdb", ("new",))
    assert reader.keys() == ["new"]
    with pytest.raises(DatasetError, match="has no image 'old'"):
        reader.get("old")


KILLED = """
import sys
from mambair.data import lmdb_store
lmdb_store.BATCH_BYTES = 5000
with lmdb_store.LmdbWriter(sys.argv[1], resume=True) as writer:
    for number in range(10**9):
        key = f"{number:09d}"
        if key not in writer:
            writer.put(key, key.encode() * 100, 1, 1, 1)
"""


@pytest.mark.slow
def test_after_a_kill_everything_committed_is_there(tmp_path: Path, repository: Path) -> None:
    folder, journal = tmp_path / "a.lmdb", tmp_path / "a.lmdb.partial" / "journal.txt"
    count = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=repository)
        deadline = time.monotonic() + 60
        # several transactions further than before
        size = 1000 + (journal.stat().st_size if journal.exists() else 0)
        while (not journal.exists() or journal.stat().st_size <= size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert not folder.exists()
        with pytest.raises(RuntimeError), LmdbWriter(folder, resume=True) as writer:
            found = len(writer)
            raise RuntimeError
        assert found > count
        count = found
    with LmdbWriter(folder, resume=True) as writer:
        assert len(writer) > 0
    reader = LmdbReader(folder)
    keys = reader.keys()
    assert all(reader.get(key) == key.encode() * 100 for key in keys)
    assert keys == [f"{number:09d}" for number in range(len(reader))]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("data.mdb", None, "is no LMDB: it has no data.mdb"),
        ("meta_info.txt", None, "was not finished"),
        ("meta_info.txt", "", "names no image"),
        ("meta_info.txt", "a.png (1,1,3) 1\nb.png\n", r"meta_info.txt:2: found 'b.png'; 'name.png \(height,"),
    ],
    ids=["no data", "no meta info", "empty meta info", "broken line"],
)
def test_what_is_no_whole_database(tmp_path: Path, name: str, content: str | None, text: str) -> None:
    fill(tmp_path / "a.lmdb").close()
    if content is None:
        (tmp_path / "a.lmdb" / name).unlink()
    else:
        (tmp_path / "a.lmdb" / name).write_text(content)
    with pytest.raises(DatasetError, match=text):
        LmdbReader(tmp_path / "a.lmdb")


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "a.lmdb").close()
    (tmp_path / "a.lmdb" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(DatasetError, match=r"a\.lmdb: cannot be read"):
        LmdbReader(tmp_path / "a.lmdb").get("0001")


def test_lines_of_other_writers_are_understood(tmp_path: Path) -> None:
    reader = fill(tmp_path / "a.lmdb")
    reader.close()
    (tmp_path / "a.lmdb" / "meta_info.txt").write_text("0001.png (6, 5, 3)\nCanon/0001 (6,5,3) 3\nv1.5.png (6,5,3) 1\n")
    again = LmdbReader(tmp_path / "a.lmdb")
    assert again.keys() == ["0001", "Canon/0001", "v1.5"]
    assert again.entry("Canon/0001").name == "Canon/0001"


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_lines_of_editors_are_understood(tmp_path: Path, mark: str, end: str) -> None:
    keys = ("0001", "a\u2028b", "a\x85b", "no break\xa0space")  # str.splitlines would split two of them
    fill(tmp_path / "a.lmdb", keys).close()
    path = tmp_path / "a.lmdb" / "meta_info.txt"
    path.write_bytes((mark + path.read_bytes().decode().replace("\n", end)).encode())
    reader = LmdbReader(tmp_path / "a.lmdb")
    assert reader.keys() == sorted(keys)
    assert [reader.get(key) for key in keys] == [png(number) for number in range(4)]


def test_a_database_that_another_reader_has_open_is_not_called_damaged(tmp_path: Path) -> None:
    import lmdb

    reader = fill(tmp_path / "a.lmdb")
    words = r"a\.lmdb: is open in this process already, through another reader such as"
    with lmdb.open(str(tmp_path / "a.lmdb"), readonly=True, lock=False), pytest.raises(DatasetError, match=words):
        reader.get("0001")
    assert reader.get("0001") == png(0)
    reader.close()


def test_a_check_leaves_the_database_closed(tmp_path: Path) -> None:
    import lmdb

    from mambair.data import BicubicDataset

    fill(tmp_path / "a.lmdb")
    root = str(tmp_path / "a.lmdb")
    opt = {"type": "BicubicDataset", "dataroot_gt": root, "io_backend": {"type": "lmdb"}, "phase": "val", "scale": 2}
    assert BicubicDataset.check(opt) == []
    lmdb.open(root, readonly=True, lock=False).close()


def read_in_worker(reader: LmdbReader, key: str, answers: multiprocessing.Queue) -> None:
    answers.put((os.getpid(), reader.get(key)))


@pytest.mark.parametrize(
    "method", [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]
)
def test_workers_open_the_database_themselves(tmp_path: Path, method: str) -> None:
    reader = fill(tmp_path / "a.lmdb")
    assert reader.get("0001") == png(0)  # open here already
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=read_in_worker, args=(reader, key, answers)) for key in KEYS[:2]]
    for worker in workers:
        worker.start()
    found = dict(answers.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    assert sorted(found.values()) == sorted([png(0), png(1)])
    assert os.getpid() not in found
    assert reader.get("Canon/0001") == png(1)


def test_readers_of_one_folder_share_the_database(tmp_path: Path) -> None:
    reader = fill(tmp_path / "a.lmdb")
    (tmp_path / "link.lmdb").symlink_to(tmp_path / "a.lmdb")
    others = [LmdbReader(tmp_path / "link.lmdb"), pickle.loads(pickle.dumps(reader))]  # noqa: S301 - our own
    assert all(other.get("0001") == reader.get("0001") for other in others)


@needs_basicsr
def test_basicsr_reads_ours(tmp_path: Path) -> None:
    import_basicsr()
    from basicsr.data.data_util import paired_paths_from_lmdb
    from basicsr.utils import FileClient, imfrombytes

    keys = ("0001", "Canon/0001")
    for name in ("gt", "lq"):
        fill(tmp_path / f"{name}.lmdb", keys)
    folders = [str(tmp_path / "lq.lmdb"), str(tmp_path / "gt.lmdb")]
    pairs = paired_paths_from_lmdb(folders, ["lq", "gt"])
    assert [pair["gt_path"] for pair in pairs] == sorted(keys)
    client = FileClient("lmdb", db_paths=folders, client_keys=["lq", "gt"])
    for number, key in enumerate(keys):
        for role in ("lq", "gt"):
            encoded = client.get(key, role)
            assert encoded == png(number)
        assert np.array_equal(imfrombytes(encoded)[:, :, ::-1], picture(number))


@needs_basicsr
def test_the_data_set_of_basicsr_reads_ours(tmp_path: Path) -> None:
    from mambair.data import build_dataset

    opt = {"phase": "val", "scale": 1, "io_backend": {"type": "lmdb"}}
    for name in ("gt", "lq"):
        fill(tmp_path / f"{name}.lmdb", ("0001", "Canon/0001")).close()
        opt[f"dataroot_{name}"] = str(tmp_path / f"{name}.lmdb")
    ours = build_dataset(opt | {"type": "PairedImageDataset"})
    expected = [ours[index]["gt"].clone() for index in range(2)]
    for source in ours.sources.values():
        source.close()
    assert type(ours).check(ours.opt) == []
    theirs = build_dataset(opt | {"type": "basicsr/PairedImageDataset"})
    assert len(theirs) == 2
    for index in range(2):
        assert torch.equal(theirs[index]["gt"], expected[index])
        assert torch.equal(theirs[index]["lq"], expected[index])


@needs_basicsr
def test_ours_reads_basicsr(tmp_path: Path) -> None:
    import_basicsr()
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    from mambair.images.decode import decode

    (tmp_path / "images" / "Canon").mkdir(parents=True)
    names = ["0001.png", "Canon/0001.png"]
    for number, name in enumerate(names):
        (tmp_path / "images" / name).write_bytes(png(number))
    keys = [name.removesuffix(".png") for name in names]
    make_lmdb_from_imgs(str(tmp_path / "images"), str(tmp_path / "theirs.lmdb"), names, keys, map_size=2**20)
    reader = LmdbReader(tmp_path / "theirs.lmdb")
    assert reader.keys() == keys
    for number, key in enumerate(keys):
        assert reader.entry(key) == (names[number], 6, 5, 3)
        assert np.array_equal(decode(reader.get(key), 1000).pixels, picture(number))


def test_without_the_package_the_message_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DatasetError, match=r"needs the package lmdb.*mambair\[train\]"):
        LmdbReader(tmp_path)
