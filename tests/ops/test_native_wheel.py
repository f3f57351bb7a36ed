"""The wheel that carries the native library: its tags and record, and that it loads without a compiler."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mambair.ops import native

CHILD = """
import mambair, torch
from mambair.ops import native
assert native.load(), native.why_not()
print(mambair.__file__)
print(native.library_path())
"""


@pytest.fixture
def build_wheel(load_script):
    return load_script("build_wheel")


def check_record(wheel: zipfile.ZipFile) -> None:
    record = next(name for name in wheel.namelist() if name.endswith("/RECORD"))
    rows = list(csv.reader(wheel.read(record).decode().splitlines()))
    assert sorted(row[0] for row in rows) == sorted(wheel.namelist())
    for name, digest, size in rows:
        if name != record:
            content = wheel.read(name)
            wanted = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={wanted}", len(content))


def test_library_is_added_to_a_pure_wheel(build_wheel, tmp_path) -> None:
    pure = tmp_path / "mambair-1.0-py3-none-any.whl"
    info = "mambair-1.0.dist-info"
    with zipfile.ZipFile(pure, "w") as wheel:
        wheel.writestr("mambair/__init__.py", "")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    library = tmp_path / "library"
    library.write_bytes(b"\0GLIBC_2.14\0GLIBC_2.34\0")
    platform = build_wheel.platform_tag(library)
    built = build_wheel.add_library(pure, library, "lib.so", platform, tmp_path / "dist")
    assert built.name == f"mambair-1.0-py3-none-{platform}.whl"
    if sys.platform == "linux":
        assert platform.startswith("manylinux_2_34_")
    with zipfile.ZipFile(built) as wheel:
        check_record(wheel)
        assert wheel.read("mambair/_kernels/lib.so") == library.read_bytes()
        metadata = wheel.read(f"{info}/WHEEL").decode()
    assert metadata == f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n"


@pytest.mark.slow
def test_wheel_loads_without_a_compiler(build_wheel, tmp_path) -> None:
    if not native.load():
        pytest.skip(f"no native library: {native.why_not()}")
    script = Path(build_wheel.__file__)
    subprocess.run([sys.executable, str(script), "--output", str(tmp_path)], check=True)
    wheel = next(tmp_path.glob("mambair-*-py3-none-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        check_record(archive)
        archive.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "MAMBAIR_NATIVE": "prebuilt", "CXX": "no"}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    package, library = done.stdout.split()
    assert Path(package).is_relative_to(tmp_path / "installed")
    assert Path(library).is_relative_to(tmp_path / "installed")
