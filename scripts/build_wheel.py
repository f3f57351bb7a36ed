"""Build a wheel that carries the native scan compiled: ``py3-none-PLATFORM``, for every Python and torch it supports.

    python scripts/build_wheel.py [--output dist] [--platform manylinux_2_28_x86_64]

The pure wheel of the project is built first; the compiled library, the platform's tag and a new RECORD are added. On
Linux the tag follows from the newest glibc symbol the library needs, so compile on an old system for wide use.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("mambair", "kernels", "options", "setup.py", "pyproject.toml", "README.md", "LICENSE")
OLDEST_GLIBC = 28  # of the manylinux that torch itself supports: 2.28


def build_pure_wheel(folder: Path) -> Path:
    """The project's own wheel, built from a clean copy of its sources, in ``folder``."""
    copy = folder / "sources"
    copy.mkdir()
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(copy)], check=True)
    return next(folder.glob("mambair-*.whl"))


def platform_tag(library: Path) -> str:
    """The platform part of the wheel's name."""
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if not platform.startswith("linux_"):
        return platform
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())]
    return platform.replace("linux_", f"manylinux_2_{max([OLDEST_GLIBC, *needed])}_", 1)


def add_library(pure: Path, library: Path, name_in_package: str, platform: str, output: Path) -> Path:
    """Write the wheel that holds what ``pure`` holds and the library; returns its path."""
    from mambair.system.atomic_file import atomic_path

    tag = f"py3-none-{platform}"
    target = output / pure.name.replace("py3-none-any", tag)
    with zipfile.ZipFile(pure) as source:
        files = {name: source.read(name) for name in source.namelist()}
    info = next(name.split("/")[0] for name in files if name.endswith(".dist-info/WHEEL"))
    files[f"mambair/_kernels/{name_in_package}"] = library.read_bytes()
    files[f"{info}/WHEEL"] = _retagged(files[f"{info}/WHEEL"].decode(), tag).encode()
    record = f"{info}/RECORD"
    del files[record]
    lines = [f"{name},sha256={_record_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return target


def _retagged(metadata: str, tag: str) -> str:
    lines = [line for line in metadata.splitlines() if line and not line.startswith(("Tag:", "Root-Is-Purelib:"))]
    return "\n".join([*lines, "Root-Is-Purelib: false", f"Tag: {tag}", ""])


def _record_digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> int:
    """Returns 0, or 1 when the compiler or the packaging failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="folder of the wheel (default: dist)")
    parser.add_argument("--platform", help="platform tag, where the one found does not suit you")
    arguments = parser.parse_args()

    sys.path.insert(0, str(REPOSITORY))
    from mambair.ops import native
    from mambair.system.errors import RequestError

    with tempfile.TemporaryDirectory(prefix="mambair-wheel-") as scratch:
        library = Path(scratch) / native.PREBUILT_NAME
        try:
            native.compile_library(library)
            pure = build_pure_wheel(Path(scratch))
        except (RequestError, subprocess.CalledProcessError) as error:
            print(f"build_wheel: {error}", file=sys.stderr)
            return 1
        platform = arguments.platform or platform_tag(library)
        print(add_library(pure, library, native.PREBUILT_NAME, platform, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
