"""Finding, compiling, caching and loading the native library; compilers here are scripts that copy the loaded one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mambair.ops import native
from mambair.system.cache_folder import private_folder
from mambair.system.errors import RequestError

POSIX = pytest.mark.skipif(os.name != "posix", reason="the stand-in compiler is a shell script")

STAND_IN = """#!/bin/sh
# --version names it; -c makes empty objects; -shared copies the library named by MAMBAIR_TEST_LIBRARY.
case "$*" in
  *--version) echo "stand-in 1.0"; exit 0 ;;
esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && target="$2"; [ "$1" = -shared ] && shared=1; shift; done
if [ -n "$shared" ]; then
  echo build >> "$MAMBAIR_TEST_LOG"
  sleep 0.3
  cp "$MAMBAIR_TEST_LIBRARY" "$target"
else
  : > "$target"
fi
"""

CHILD = """
from mambair.ops import native
import torch
assert native.load(), native.why_not()
assert torch.ops.mambair.native_supported_isas()
print(native.library_path())
"""


@pytest.fixture(scope="session")
def loaded() -> Path:
    """The real library's file; before any test changes the loader."""
    if not native.load():
        pytest.skip(f"no native library: {native.why_not()}")
    path = native.library_path()
    assert path is not None
    return path


@pytest.fixture
def fresh(loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A loader that has tried nothing, an empty cache, and the list of files it loads (none is really loaded)."""
    opened: list[Path] = []

    def try_to_load(path: Path) -> None:
        opened.append(path)

    monkeypatch.setattr(native, "_state", native._State())
    monkeypatch.setattr(native, "_try_to_load", try_to_load)
    monkeypatch.setattr(native, "_check_isa", lambda: None)
    monkeypatch.setattr("mambair.system.cache_folder._temporary", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(native.MODE_VARIABLE, raising=False)
    return opened


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loaded: Path) -> Path:
    """A compiler that takes no time; returns the log with one line for each build."""
    compiler = tmp_path / "compiler"
    compiler.write_text(STAND_IN)
    compiler.chmod(0o755)
    log = tmp_path / "builds"
    log.write_text("")
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MAMBAIR_TEST_LOG", str(log))
    monkeypatch.setenv("MAMBAIR_TEST_LIBRARY", str(loaded))
    return log


def builds(log: Path) -> int:
    return len(log.read_text().splitlines())


def child_environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}


def test_loading_twice_does_the_work_once(fresh, monkeypatch) -> None:
    monkeypatch.setattr(native, "_find_and_load", lambda mode: fresh.append(Path(mode)) or Path(mode))
    assert native.load()
    assert native.load()
    assert fresh == [Path("auto")]
    assert native.why_not() is None


def test_switched_off(fresh, monkeypatch) -> None:
    monkeypatch.setenv(native.MODE_VARIABLE, "off")
    assert not native.load()
    assert native.why_not() == "MAMBAIR_NATIVE=off"
    assert native.library_path() is None
    assert fresh == []


def test_unknown_mode(fresh, monkeypatch) -> None:
    monkeypatch.setenv(native.MODE_VARIABLE, "fast")
    with pytest.raises(RequestError, match="MAMBAIR_NATIVE=fast: must be one of auto, prebuilt, off"):
        native.load()


def test_prebuilt_is_preferred(fresh, monkeypatch, tmp_path) -> None:
    prebuilt = tmp_path / "_kernels" / native.PREBUILT_NAME
    prebuilt.parent.mkdir()
    prebuilt.touch()
    monkeypatch.setattr(native, "_PACKAGE", tmp_path)
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert native.load()
    assert fresh == [prebuilt]


def test_prebuilt_only_and_missing(fresh, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(native, "_PACKAGE", tmp_path)
    monkeypatch.setenv(native.MODE_VARIABLE, "prebuilt")
    assert not native.load()
    assert "carries no libmambair_native.so" in (native.why_not() or "")


def test_without_a_compiler_the_reason_says_what_to_install(fresh, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not native.load()
    reason = native.why_not() or ""
    assert "no C++ compiler (c++, g++, clang++)" in reason
    assert "apt install g++" in reason


def test_named_compiler_that_does_not_exist(fresh, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++ -m64")
    assert not native.load()
    assert native.why_not() == "CXX=/nowhere/c++ -m64: there is no such compiler"


@POSIX
def test_failing_compiler_is_quoted(fresh, monkeypatch, tmp_path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "error: no such flag" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert not native.load()
    assert native.why_not() == f"{compiler} failed:\nerror: no such flag"
    assert not list((tmp_path / "cache").rglob("*.so"))


FAILURES: dict[str, tuple[str, str]] = {
    "old GCC": (
        "g++: error: unrecognized command line option '-std=c++20'; did you mean '-std=c++2a'?",
        "c++ failed because it does not know C++20; set CXX to GCC 11, Clang 13 or newer:\ng++: error: unrecognized",
    ),
    "old Clang": (
        "error: invalid value 'c++20' in '-std=c++20'\nnote: use 'c++98'",
        "c++ failed because it does not know C++20; set CXX to GCC 11, Clang 13 or newer:\nerror: invalid value",
    ),
    "memory": (
        "g++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated.",
        "c++ failed, probably out of memory:\ng++: fatal error: Killed signal",
    ),
    "disk": (
        "/tmp/cc.s: Assembler messages:\n/tmp/cc.s: Fatal error: can't write 5 bytes: No space left on device",
        "c++ failed because the disk is full:\n/tmp/cc.s: Fatal error: can't write",
    ),
    "the first error of many": (
        "In file included from a.cpp\na.cpp:3:1: error: first\n" + "a.cpp:4:1: note: x\n" * 30 + "a.cpp:9:1: error: z",
        "c++ failed:\na.cpp:3:1: error: first\na.cpp:4:1: note: x\n",
    ),
    "linker": (
        "/usr/bin/ld: cannot find -ltorch_cpu\ncollect2: error: ld returned 1 exit status",
        "c++ failed:\n/usr/bin/ld: cannot find -ltorch_cpu\ncollect2: error",
    ),
    "control characters": ("error: \x1b[31mred", "c++ failed:\nerror: \\x1b[31mred"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_the_message_names_the_cause(case) -> None:
    output, message = FAILURES[case]
    failure = native._failure("c++", output)
    assert failure.startswith(message)
    assert len(failure.splitlines()) <= 1 + native.SHOWN_LINES


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiler", [name for name in ("g++", "clang++", *(f"clang++-{n}" for n in range(13, 22))) if shutil.which(name)]
)
def test_every_compiler_here_makes_a_library_that_loads(compiler, tmp_path, repository) -> None:
    library = tmp_path / "scan.so"
    native.compile_library(library, [compiler])
    code = "import sys, torch; torch.ops.load_library(sys.argv[1]); print(torch.ops.mambair.native_supported_isas())"
    command = [sys.executable, "-c", f"import mambair.ops; {code}", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=child_environment(repository))
    assert done.stdout.split()[-1] == "portable"


@POSIX
def test_second_process_finds_the_first_ones_build(fresh, stand_in, monkeypatch) -> None:
    assert native.load()
    monkeypatch.setattr(native, "_state", native._State())
    assert native.load()
    assert builds(stand_in) == 1
    assert fresh[0] == fresh[1]


@POSIX
@pytest.mark.parametrize("damage", ["cut", "changed", "no-checksum"])
def test_damaged_file_is_compiled_again(damage, fresh, stand_in, monkeypatch, loaded) -> None:
    assert native.load()
    library = fresh[0]
    content = library.read_bytes()
    if damage == "cut":
        library.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        library.write_bytes(content[:5000] + b"\0" * 64 + content[5064:])
    else:
        library.with_suffix(".sha256").unlink()
    monkeypatch.setattr(native, "_state", native._State())
    assert native.load()
    assert builds(stand_in) == 2
    assert library.read_bytes() == loaded.read_bytes()


@POSIX
def test_key_changes_with_sources_and_compiler_only(fresh, stand_in, monkeypatch, tmp_path) -> None:
    copied = tmp_path / "kernels"
    shutil.copytree(native.sources(), copied)
    monkeypatch.setattr(native, "sources", lambda: copied)
    compiler = os.environ["CXX"]
    first = native._key([compiler])
    assert native._key([compiler]) == first
    assert native._key([compiler, "-m64"]) != first
    monkeypatch.setattr(native.torch, "__version__", "99.0")
    assert native._key([compiler]) == first
    with (copied / "portable.cpp").open("a") as file:
        file.write("// changed\n")
    assert native._key([compiler]) != first


@POSIX
def test_a_cache_that_cannot_be_made_is_a_temporary_one(fresh, stand_in, monkeypatch, tmp_path, caplog) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert native.load()
    assert "the cache folder cannot be used" in caplog.text and "a temporary one is used" in caplog.text
    assert fresh[0].parent.stat().st_mode & 0o077 == 0


@POSIX
@pytest.mark.parametrize("filled", [True, False], ids=["filled", "empty"])
def test_a_read_only_cache(filled, fresh, stand_in, monkeypatch, caplog) -> None:
    folder = private_folder("native")
    if filled:
        assert native.load()
        next(folder.glob("*.lock")).unlink()
        monkeypatch.setattr(native, "_state", native._State())

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(native, "exclusive", refuse)
    assert native.load()
    assert builds(stand_in) == 1
    assert (fresh[-1].parent == folder) == filled
    assert ("Read-only file system" in caplog.text) == (not filled)


@POSIX
def test_a_cache_on_a_noexec_file_system_is_copied(fresh, stand_in, monkeypatch, caplog) -> None:
    monkeypatch.setattr(native, "_is_noexec", lambda folder: folder == private_folder("native"))
    for _ in range(2):
        monkeypatch.setattr(native, "_state", native._State())
        assert native.load()
    assert builds(stand_in) == 1, "what is in the cache is not compiled again"
    assert not fresh[-1].is_relative_to(private_folder("native"))
    assert caplog.text.count("is on a file system mounted noexec; a temporary one is used") == 1


@POSIX
@pytest.mark.parametrize("noexec", [False, True])
def test_a_library_that_cannot_be_loaded(noexec, fresh, stand_in, monkeypatch) -> None:
    monkeypatch.setattr(native, "_is_noexec", lambda folder: noexec)
    monkeypatch.setattr(native, "_try_to_load", lambda path: "failed to map segment")
    assert not native.load()
    advice = "set XDG_CACHE_HOME or TMPDIR to a folder of a file system that is not mounted noexec"
    reason = native.why_not() or ""
    assert f"cannot be loaded: failed to map segment; {advice if noexec else 'delete it to have it'}" in reason


@POSIX
def test_no_home_and_an_unknown_user(fresh, stand_in, monkeypatch, caplog) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert native.load()
    assert "the cache folder cannot be used: Could not determine home directory" in caplog.text


@POSIX
def test_a_line_says_that_it_is_compiled(fresh, stand_in, monkeypatch, caplog) -> None:
    for _ in range(2):
        monkeypatch.setattr(native, "_state", native._State())
        assert native.load()
    assert caplog.text.count("compiling the native scan with") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"], "printed where no logging is set up"


@POSIX
def test_two_processes_at_once_make_one_build(stand_in, monkeypatch, tmp_path, repository) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = [
        subprocess.Popen([sys.executable, "-c", CHILD], env=child_environment(repository), stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=120)[0] for process in run}
    assert [process.returncode for process in run] == [0, 0]
    assert len(paths) == 1
    assert builds(stand_in) == 1


def test_threads_at_once_make_one_build(fresh, monkeypatch) -> None:
    started = threading.Barrier(4)

    def load(_: int) -> bool:
        started.wait()
        return native.load()

    monkeypatch.setattr(native, "_find_and_load", lambda mode: fresh.append(Path(mode)) or Path(mode))
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(load, range(4)))
    assert len(fresh) == 1


@pytest.mark.parametrize(
    ("isa", "message"),
    [("sse9", "MAMBAIR_ISA='sse9' is no instruction set of this library; known: avx512, avx2, portable")],
)
def test_unknown_instruction_set_is_an_error(isa, message, loaded, monkeypatch) -> None:
    monkeypatch.setenv("MAMBAIR_ISA", isa)
    # The library reads the process's environment, which monkeypatch changes through os.environ.
    with pytest.raises(RequestError, match=message):
        native.use_isa("")
    monkeypatch.delenv("MAMBAIR_ISA")
    native.use_isa("")


def test_instruction_set_of_the_environment(loaded, monkeypatch) -> None:
    monkeypatch.setenv("MAMBAIR_ISA", "portable")
    assert native.use_isa("") == "portable"
    monkeypatch.delenv("MAMBAIR_ISA")
    assert native.use_isa("") == native.supported_isas()[0]
    assert native.isa() == native.supported_isas()[0]


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_binary_is_tied_to_no_torch_version(loaded) -> None:
    command = ["nm", "-D", "--undefined-only", "--demangle", str(loaded)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    symbols = [line.split(maxsplit=1)[-1] for line in listing.splitlines()]
    assert any(symbol.startswith("torch_library_impl") for symbol in symbols)
    assert [symbol for symbol in symbols if "c10::" in symbol or "at::" in symbol] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_instruction_sets_share_no_code(loaded, tmp_path) -> None:
    # The linker keeps one copy of a function that several files define; were that the AVX-512 one, a processor
    # without AVX-512 would fail in a common function. So every symbol must bear its instruction set's name.
    compiler = native._find_compiler()
    for name in ("avx2", "avx512"):
        source, target = native.sources() / f"{name}.cpp", tmp_path / f"{name}.o"
        flags = native._flags(source)
        native._run([*compiler, *flags, f"-I{native.sources()}", "-c", str(source), "-o", str(target)])
        listing = subprocess.run(["nm", "-C", str(target)], capture_output=True, text=True, check=True).stdout
        shared = [line for line in listing.splitlines() if " W " in line or " V " in line or " u " in line]
        assert [line for line in shared if name not in line.lower()] == []


def test_whether_loading_would_compile(fresh: list[Path], stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("off", "prebuilt"):
        monkeypatch.setenv(native.MODE_VARIABLE, mode)
        assert not native.would_compile()
    monkeypatch.delenv(native.MODE_VARIABLE)
    assert native.would_compile() and stand_in.read_text() == ""
    assert native.load()
    monkeypatch.setattr(native, "_state", native._State())
    assert not native.would_compile()
