"""Published outputs on other instruction sets of torch and of the scan; scripts/full_check.sh runs all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mambair.ops import native

CASES = [
    "tests/archs/test_mambair_arch.py::test_published_outputs[mambair_ps_x2]",
    "tests/archs/test_mambair_arch.py::test_published_outputs[mambair_light_x3]",
    "tests/backbones/test_vmamba.py::test_published_scan_layers",
]


@pytest.mark.parametrize(("aten", "isa"), [("default", "portable"), ("avx2", "avx2")])
def test_published_outputs(aten: str, isa: str, repository: Path) -> None:
    if not native.load() or isa not in native.supported_isas():
        pytest.skip(f"this machine cannot run {isa}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CASES],
        cwd=repository,
        env={**os.environ, "ATEN_CPU_CAPABILITY": aten, "MAMBAIR_ISA": isa},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
