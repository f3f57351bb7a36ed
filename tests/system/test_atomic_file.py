"""Atomic files: all or nothing, beside the target, with the permissions of a new file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mambair.system.atomic_file import atomic_path


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


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_a_writer_that_makes_its_file_private_does_not_make_ours_private(tmp_path: Path) -> None:
    plain, target = tmp_path / "plain", tmp_path / "target"
    plain.touch()
    with atomic_path(target) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_names_of_any_length_and_alphabet(tmp_path: Path) -> None:
    target = tmp_path / ("ж" * 120 + ".png")  # 244 bytes, 255 are the limit
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"
