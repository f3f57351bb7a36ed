"""Locks of open files: one holder at a time, waiting with an end, and nothing planted is locked."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mambair.system import file_lock
from mambair.system.file_lock import exclusive, locked, try_lock, unlock
from mambair.system.jsonl import AppendError, JsonLines
from mambair.system.path_gate import UnsafePathError

pytestmark = pytest.mark.usefixtures("any_system")


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "a"), opened(tmp_path / "a")
    assert try_lock(one) and not try_lock(two)
    unlock(one)
    assert try_lock(two) and not try_lock(one)
    os.close(two)
    assert try_lock(one), "closing the file releases its lock"
    os.close(one)


def test_waiting_ends(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "a"), opened(tmp_path / "a")
    assert try_lock(one)
    with (
        pytest.raises(TimeoutError, match="another process has held its lock for 0 s; end that process"),
        locked(two, seconds=0.05),
    ):
        raise AssertionError("locked twice")
    threading.Timer(0.05, lambda: unlock(one)).start()
    with locked(two):
        assert not try_lock(one)
    assert try_lock(one)
    os.close(one), os.close(two)


def test_who_holds_a_file_of_lines_for_ever_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.system.jsonl._WAIT", 0.05)
    holder = opened(tmp_path / "lines")
    assert try_lock(holder)
    with pytest.raises(AppendError, match="lines cannot be written: another process has held its lock for 0 s"):
        JsonLines(tmp_path / "lines").append({"a": 1})
    os.close(holder)


def test_who_holds_a_lock_for_ever_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mambair.system.file_lock._PATIENCE", 0.05)
    caplog.set_level("INFO")
    holder = opened(tmp_path / "lock")
    assert try_lock(holder)
    with pytest.raises(TimeoutError, match="end that process"), exclusive(tmp_path / "lock"):
        raise AssertionError("locked twice")
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for another process, which holds {tmp_path / 'lock'}"
    ]
    os.close(holder)


def test_exclusive_blocks_come_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []

    def work() -> None:
        with exclusive(tmp_path / "lock"):
            inside.append(1)
            time.sleep(0.01)
            assert sum(inside) == 1
            inside.append(-1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert inside == [1, -1] * 4


@pytest.mark.skipif(os.name != "posix", reason="links, pipes")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_nothing_planted_is_locked(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    {"link": lambda: path.symlink_to(tmp_path / "new"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises(UnsafePathError, match=r"lock is a .*, where a regular file is expected"), exclusive(path):
        raise AssertionError("locked")
    assert not (tmp_path / "new").exists()


def test_a_file_system_without_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    if file_lock.fcntl is None:
        pytest.skip("the locks of Windows are there on every file system")
    monkeypatch.setattr(file_lock.fcntl, "flock", without)
    with pytest.raises(OSError, match="No locks available"), exclusive(tmp_path / "lock"):
        raise AssertionError("locked")
