"""How an attack is run: beside a file of the user, which must be as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Attack = Callable[[Path, pytest.MonkeyPatch], str]


@pytest.fixture(autouse=True)
def private(tmp_path: Path) -> Iterator[Path]:
    """A file of the user beside every attack; nothing may change it, replace it or remove it."""
    path = tmp_path / "private.txt"
    path.write_text("mine")
    before = path.stat()
    yield path
    after = path.lstat()
    assert (path.read_text(), after.st_ino, after.st_mode) == ("mine", before.st_ino, before.st_mode)


@pytest.fixture
def outcome_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Attack], str]:
    """Runs an attack: its result, or ``Class: message`` of its error, which must be one printable line."""

    def run(attack: Attack) -> str:
        try:
            return attack(tmp_path, monkeypatch)
        except (ValueError, RuntimeError) as error:
            assert str(error).isprintable(), repr(str(error))
            return f"{type(error).__name__}: {error}"

    return run
