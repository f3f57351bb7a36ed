"""The native CPU library of the scans: finding a prebuilt one, compiling one at first use, loading it.

The sources use LibTorch's stable C interface only, so one binary serves every torch from 2.10 on.
``MAMBAIR_NATIVE``: ``auto`` (prebuilt, else compiled), ``prebuilt`` (never compile) or ``off``.
``MAMBAIR_ISA`` forces an instruction set: ``avx512``, ``avx2`` or ``portable``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from mambair.system.atomic_file import atomic_path
from mambair.system.cache_folder import is_own_file, private_folder, temporary_folder
from mambair.system.console import printable
from mambair.system.errors import RequestError
from mambair.system.file_lock import exclusive

logger = logging.getLogger(__name__)

MODE_VARIABLE = "MAMBAIR_NATIVE"
MODES = ("auto", "prebuilt", "off")
PREBUILT_NAME = "libmambair_native.so"
TIME_LIMIT = 600.0  # seconds for one file
# from these a compiler takes headers and libraries that no command names; an empty part is the current folder
_SEARCH_PATHS = frozenset(
    {"CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH", "LIBRARY_PATH"}
)
STABLE_TARGET = "TORCH_TARGET_VERSION=0x020a000000000000ULL"  # LibTorch's stable interface as of 2.10

_PACKAGE = Path(__file__).resolve().parents[1]
_FLAGS = (
    "-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-math-errno",
    "-ffp-contract=off", "-w", f"-D{STABLE_TARGET}",
)  # fmt: skip
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
_X86_FLAGS = {"avx2.cpp": _AVX2, "avx512.cpp": _AVX512}  # elsewhere these files compile to nothing

SHOWN_LINES = 8
_ERROR = re.compile(r"(^|[\s:])error: (?!ld returned|linker command)")
_HINTS = (
    ("std=c++20", " because it does not know C++20; set CXX to GCC 11, Clang 13 or newer"),
    ("Killed", ", probably out of memory"),
    ("No space left", " because the disk is full"),
)


class _Unavailable(Exception):
    """Why there is no native library; the text is for the user."""


@dataclass
class _State:
    tried: bool = False
    reason: str | None = None
    path: Path | None = None


_state = _State()
_lock = threading.Lock()


def load() -> bool:
    """Load the native library if that can be done; compiles it at the first use on this machine (10 to 100 s).

    Returns:
        Whether the CPU implementations of the ``mambair`` operators are there. The work is done once per process;
        :func:`why_not` has the reason of a failure.

    Raises:
        RequestError: ``MAMBAIR_NATIVE`` or ``MAMBAIR_ISA`` has a value that is unknown or not supported here.
    """
    with _lock:
        if not _state.tried:
            mode = os.environ.get(MODE_VARIABLE, "auto") or "auto"
            if mode not in MODES:
                raise RequestError(f"{MODE_VARIABLE}={mode}: must be one of {', '.join(MODES)}")
            try:
                _state.path = _find_and_load(mode)
                _state.reason = None
            except _Unavailable as unavailable:
                _state.reason = str(unavailable)
            _state.tried = True
            if _state.path is not None:
                _check_isa()
        return _state.path is not None


def would_compile() -> bool:
    """Return whether :func:`load` would have to compile the library first."""
    mode = os.environ.get(MODE_VARIABLE, "auto") or "auto"
    if _state.tried or mode != "auto" or (_PACKAGE / "_kernels" / PREBUILT_NAME).is_file():
        return False
    try:
        return not _is_intact(private_folder("native") / f"mambair-{_key(_find_compiler())}.so")
    except (_Unavailable, OSError):
        return False  # there is none, which `why_not` explains


def why_not() -> str | None:
    """Why :func:`load` found no native library, and what would help; None when it is loaded or was not tried."""
    return _state.reason


def library_path() -> Path | None:
    """The loaded library's file, or None."""
    return _state.path


def isa() -> str:
    """The instruction set in use. The library must be loaded."""
    return torch.ops.mambair.native_isa("")


def use_isa(name: str) -> str:
    """Use another instruction set from now on in this process; an empty name goes back to the default.

    Raises:
        RequestError: The name is unknown, or this processor does not support it.
    """
    try:
        return torch.ops.mambair.native_isa(name)
    except RuntimeError as error:
        raise RequestError(str(error).splitlines()[0]) from error


def supported_isas() -> list[str]:
    """Names of the instruction sets this processor can run, best first. The library must be loaded."""
    return torch.ops.mambair.native_supported_isas().split()


def sources() -> Path:
    """The folder with the C++ sources: inside an installed package, else of the checkout."""
    installed = _PACKAGE / "_kernels"
    return installed if (installed / "scan").is_dir() else _PACKAGE.parent / "kernels"


def compile_library(target: Path, compiler: list[str] | None = None) -> None:
    """Compile the sources into the shared library ``target``, files in parallel.

    Raises:
        RequestError: There is no compiler, or it failed; the message has its last lines.
    """
    try:
        _compile(target, compiler or _find_compiler())
    except _Unavailable as unavailable:
        raise RequestError(str(unavailable)) from unavailable


def _check_isa() -> None:
    try:
        use_isa("")
    except RequestError:
        _state.tried, _state.path = False, None  # a corrected MAMBAIR_ISA may be tried in the same process
        raise


def _find_and_load(mode: str) -> Path:
    if mode == "off":
        raise _Unavailable(f"{MODE_VARIABLE}=off")
    prebuilt = _PACKAGE / "_kernels" / PREBUILT_NAME
    if prebuilt.is_file():
        problem = _try_to_load(prebuilt)
        if problem is None:
            return prebuilt
        if mode == "prebuilt":
            raise _Unavailable(f"the prebuilt library cannot be loaded: {problem}")
    elif mode == "prebuilt":
        raise _Unavailable(f"{MODE_VARIABLE}=prebuilt, but this installation carries no {PREBUILT_NAME}")
    return _load_compiled()


def _load_compiled() -> Path:
    compiler = _find_compiler()
    path = private_folder("native") / f"mambair-{_key(compiler)}.so"
    try:
        if not _is_intact(path):  # a complete cache is used without a lock, which a read-only one does not allow
            path = _build_once(path, compiler)
        if _is_noexec(path.parent):
            path = _copy_to(temporary_folder("native", f"{path.parent} is on a file system mounted noexec"), path)
    except OSError as error:
        raise _Unavailable(
            f"the compiled library cannot be kept: {error}; set XDG_CACHE_HOME to a folder you can write to"
        ) from error
    problem = _try_to_load(path)
    if problem is not None:
        elsewhere = "set XDG_CACHE_HOME or TMPDIR to a folder of a file system that is not mounted noexec"
        advice = elsewhere if _is_noexec(path.parent) else "delete it to have it compiled again"
        raise _Unavailable(f"{path} cannot be loaded: {problem}; {advice}")
    return path


def _build_once(path: Path, compiler: list[str]) -> Path:
    """Compile into ``path`` unless another process has, or into a temporary folder if that cannot be written."""
    try:
        with exclusive(path.with_suffix(".lock")):
            if not _is_intact(path):
                _build(path, compiler)
    except OSError as error:
        path = temporary_folder("native", str(error)) / path.name
        _build(path, compiler)
    return path


def _is_noexec(folder: Path) -> bool:
    """Whether no library can be loaded from a folder because of how its file system is mounted (Linux)."""
    return sys.platform == "linux" and bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def _copy_to(folder: Path, path: Path) -> Path:
    copy = folder / path.name
    if copy != path:
        with atomic_path(copy) as temporary:
            shutil.copyfile(path, temporary)
    return copy


def _try_to_load(path: Path) -> str | None:
    """None, or why the library cannot be loaded."""
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return str(error.__cause__ or error)
    return None


def _build(path: Path, compiler: list[str]) -> None:
    # a warning, so that it is printed where no logging is set up: the process seems to hang otherwise
    logger.warning("compiling the native scan with %s for this machine; it takes 10 to 100 s", compiler[0])
    started = time.monotonic()
    with atomic_path(path) as temporary:
        _compile(temporary, compiler)
        digest = _digest(temporary)
    with atomic_path(_checksum_file(path)) as temporary:
        temporary.write_text(digest, encoding="ascii")
    logger.debug("compiled in %.1f s", time.monotonic() - started)


def _is_intact(path: Path) -> bool:
    """Whether the file is there, is ours and is what was written: loading a damaged one could end the process."""
    checksum = _checksum_file(path)
    if not (is_own_file(path) and is_own_file(checksum)):
        return False
    return checksum.read_bytes() == _digest(path).encode("ascii")


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _find_compiler() -> list[str]:
    """The command of a C++ compiler: ``CXX``, else c++, g++ or clang++."""
    if sys.platform == "win32":
        raise _Unavailable("it cannot be compiled on Windows; install a wheel that carries it")
    named = os.environ.get("CXX")
    if named:
        try:
            command = shlex.split(named)
        except ValueError as error:
            raise _Unavailable(f"CXX={named!r} is not a command: {error}") from None
        if not command:
            raise _Unavailable(f"CXX={named!r} names no compiler; unset it, or set it to one like g++")
        found = shutil.which(command[0])
        if found is None:
            raise _Unavailable(f"CXX={named}: there is no such compiler")
        return [os.path.abspath(found), *command[1:]]  # noqa: PTH100  a link may be named after what it does (ccache)
    for name in ("c++", "g++", "clang++"):
        found = shutil.which(name)
        if found is not None:
            return [os.path.abspath(found)]  # noqa: PTH100
    raise _Unavailable(
        "there is no C++ compiler (c++, g++, clang++); install one (Debian and Ubuntu: apt install g++, "
        "Fedora: dnf install gcc-c++, macOS: xcode-select --install) or a wheel of mambair that carries the library"
    )


def _source_files() -> list[Path]:
    folder = sources()
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cpp"))
    if not files:
        raise _Unavailable(f"its sources are missing from {folder}; reinstall mambair")
    return files


def _flags(source: Path) -> list[str]:
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return [*_FLAGS, *(_X86_FLAGS.get(source.name, ()) if is_x86 else ())]


def _key(compiler: list[str]) -> str:
    """Changes with the sources, the compiler and the flags; not with torch, whose interface here is stable."""
    folder = sources()
    content = hashlib.sha256()
    for path in _source_files():
        content.update(f"{path.relative_to(folder)} {_flags(path)}\n".encode())
        content.update(path.read_bytes())
    content.update(_run([*compiler, "--version"]).encode())
    content.update(f"{compiler} {platform.machine()} {sys.platform}".encode())
    return content.hexdigest()[:24]


def _compile(target: Path, compiler: list[str]) -> None:
    folder = sources()
    torch_folder = Path(torch.__file__).parent
    include = [f"-I{folder}", "-isystem", str(torch_folder / "include")]
    target = target.absolute()
    with tempfile.TemporaryDirectory(prefix="mambair-") as scratch:
        jobs = [
            (source, Path(scratch) / f"{source.relative_to(folder).with_suffix('')}.o".replace(os.sep, "_"))
            for source in _source_files()
            if source.suffix == ".cpp"
        ]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            compiled = [
                pool.submit(_run, [*compiler, *_flags(source), *include, "-c", str(source), "-o", str(to)], scratch)
                for source, to in jobs
            ]
            for job in compiled:
                job.result()
        objects = [str(to) for _, to in jobs]
        undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        library = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", *undefined]
        _run([*compiler, "-shared", *objects, *library, "-o", str(target)], scratch)


def _run(command: list[str], folder: str = os.sep) -> str:
    """Run a compiler in ``folder``, so that it takes no file of the current one; returns its output."""
    environment = {key: value for key, value in os.environ.items() if key not in _SEARCH_PATHS}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            cwd=folder,
            env=environment,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise _Unavailable(f"{command[0]} was stopped after {TIME_LIMIT:.0f} s") from error
    except OSError as error:
        raise _Unavailable(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise _Unavailable(_failure(command[0], done.stderr))
    return done.stdout


def _failure(compiler: str, output: str) -> str:
    """Describe why a compiler failed: its first errors, and what can be done about those that are common."""
    lines = output.strip().splitlines()
    errors = [number for number, line in enumerate(lines) if _ERROR.search(line)]
    shown = lines[errors[0] : errors[0] + SHOWN_LINES] if errors else lines[-SHOWN_LINES:]
    text = "\n".join(printable(line) for line in shown)
    hint = next((hint for words, hint in _HINTS if words in text), "")
    return f"{compiler} failed{hint}:\n{text}"
