"""Cache folders of others, planted libraries, and environments that mislead the compiler."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.ops import native
from mambair.system.cache_folder import private_folder, use_private_compile_caches

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")
ROOT = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="gives a folder to another user")
Attack = Callable[[Path, pytest.MonkeyPatch], str]
OutcomeOf = Callable[[Attack], str]


def cached(caches: Path, patch: pytest.MonkeyPatch) -> str:
    """The reason why a cache folder below ``caches`` is not used; a private temporary one must be."""
    patch.setenv("XDG_CACHE_HOME", str(caches))
    reasons: list[str] = []
    patch.setattr("mambair.system.cache_folder._temporary", {})
    patch.setattr("mambair.system.cache_folder.logger.warning", lambda text, *given: reasons.append(text % given))
    folder = private_folder("native")
    assert folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
    assert folder.is_relative_to(caches.resolve()) == (not reasons)
    assert private_folder("native") == folder and len(reasons) <= 1, "said once"
    return reasons[0] if reasons else "used"


def _existing(folder: Path, mode: int, *, above: int = 0o755) -> Path:
    made = folder / "caches" / "mambair" / "native"
    made.mkdir(parents=True)
    made.chmod(mode)
    (folder / "caches").chmod(above)
    return folder / "caches"


def cache_that_all_can_write(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(_existing(folder, 0o777), patch)


def cache_that_a_group_can_write(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(_existing(folder, 0o770), patch)


def cache_that_all_can_write_with_a_sticky_bit(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(_existing(folder, 0o1777), patch)


def folder_above_that_all_can_write(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(_existing(folder, 0o700, above=0o777), patch)


def folder_above_that_is_sticky_as_tmp_is(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(_existing(folder, 0o700, above=0o1777), patch)


def link_to_a_folder_that_all_can_write(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "theirs").mkdir()
    (folder / "theirs").chmod(0o777)
    (folder / "caches" / "mambair").mkdir(parents=True)
    (folder / "caches" / "mambair" / "native").symlink_to(folder / "theirs")
    return cached(folder / "caches", patch)


def file_in_place_of_the_cache(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return cached(folder / "private.txt", patch)


def new_cache(folder: Path, patch: pytest.MonkeyPatch) -> str:
    text = cached(folder / "caches", patch)
    assert stat.S_IMODE((folder / "caches" / "mambair").stat().st_mode) == 0o700
    return text


ATTACKS: dict[Attack, str] = {
    cache_that_all_can_write: r"native can be written by other users \(mode 0777\); a temporary one is used",
    cache_that_a_group_can_write: r"can be written by other users \(mode 0770\)",
    cache_that_all_can_write_with_a_sticky_bit: r"can be written by other users \(mode 1777\)",
    folder_above_that_all_can_write: r"caches can be written by other users \(mode 0777\)",
    folder_above_that_is_sticky_as_tmp_is: "^used$",
    link_to_a_folder_that_all_can_write: r"theirs can be written by other users",
    file_in_place_of_the_cache: "cannot be used: .*private.txt",
    new_cache: "^used$",
}


@POSIX
@pytest.mark.parametrize(("attack", "outcome"), ATTACKS.items(), ids=[each.__name__ for each in ATTACKS])
def test_cache_folders(attack: Attack, outcome: str, outcome_of: OutcomeOf) -> None:
    assert re.search(outcome, outcome_of(attack))


@ROOT
@pytest.mark.parametrize("whose", ["native", "."])
def test_a_cache_of_another_user(whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = _existing(tmp_path, 0o755)
    os.chown(caches / "mambair" / whose if whose == "native" else caches, 12345, 12345)
    assert "belongs to the user with the number 12345" in cached(caches, monkeypatch)


def test_a_relative_cache_is_ignored_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "planted")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert private_folder("native").is_relative_to(tmp_path / "home")
    assert "XDG_CACHE_HOME='planted' is ignored: it must be an absolute path" in caplog.text
    assert not (tmp_path / "planted").exists()


def test_caches_of_torch_compile_and_triton_are_private_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/named/by/the/user")
    use_private_compile_caches()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str((tmp_path / "mambair" / "inductor").resolve())
    assert os.environ["TRITON_CACHE_DIR"] == "/named/by/the/user"


COMPILER = """#!/bin/sh
case "$*" in *--version) echo 1; exit 0 ;; esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && target="$2"; shift; done
{ pwd; env; } > "$target.seen"; cp "$target.seen" "$MAMBAIR_TEST_SEEN"; : > "$target"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loader that has tried nothing and loads nothing, with a compiler that notes where it runs."""
    monkeypatch.setattr(native, "_state", native._State())
    monkeypatch.setattr(native, "_try_to_load", lambda path: None)
    monkeypatch.setattr(native, "_check_isa", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("MAMBAIR_TEST_SEEN", str(tmp_path / "seen"))
    monkeypatch.delenv(native.MODE_VARIABLE, raising=False)
    program = tmp_path / "compiler"
    program.write_text(COMPILER)
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    return tmp_path


@POSIX
def test_the_compiler_takes_nothing_of_the_current_folder(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compiler)
    for name in ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH"):
        monkeypatch.setenv(name, ":")
    monkeypatch.setenv("CXX", "./compiler")
    assert native.load(), native.why_not()
    seen = (compiler / "seen").read_text().splitlines()
    assert not Path(seen[0]).is_relative_to(compiler)
    assert [line for line in seen if re.match("(C|CPLUS_INCLUDE_|C_INCLUDE_|LIBRARY_)PATH=", line)] == []


@POSIX
def test_a_planted_library_is_not_loaded(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.load()
    right = native.library_path()
    assert right is not None
    planted = right.with_name("planted")
    planted.write_bytes(b"evil")
    loaded: list[bytes] = []
    monkeypatch.setattr(native, "_try_to_load", lambda path: loaded.append(path.read_bytes()))
    right.unlink()
    right.symlink_to(planted)  # with its own right checksum
    right.with_suffix(".sha256").write_text(native._digest(planted))
    monkeypatch.setattr(native, "_state", native._State())
    assert native.load()
    right.parent.chmod(0o777)
    monkeypatch.setattr(native, "_state", native._State())
    monkeypatch.setattr("mambair.system.cache_folder._temporary", {})
    right.write_bytes(b"evil")
    right.with_suffix(".sha256").write_text(native._digest(right))
    assert native.load()
    assert loaded == [b"", b""] and planted.read_bytes() == b"evil"


@POSIX
@pytest.mark.parametrize(
    ("cxx", "outcome"),
    [
        (" ", "CXX=' ' names no compiler; unset it, or set it to one like g++"),
        ("g++ 'unclosed", 'CXX="g++ \'unclosed" is not a command: No closing quotation'),
    ],
    ids=["blank", "quote"],
)
def test_a_compiler_that_is_no_command(cxx: str, outcome: str, compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", cxx)
    assert not native.load() and native.why_not() == outcome


@POSIX
def test_a_compiler_that_hangs_is_stopped(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (compiler / "compiler").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(native, "TIME_LIMIT", 0.2)
    assert not native.load() and "was stopped after 0 s" in (native.why_not() or "")
