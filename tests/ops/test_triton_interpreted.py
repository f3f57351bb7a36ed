"""The Triton kernels on a CPU, in a process of their own: Triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def run_kernels(repository, marker: str) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "MAMBAIR_NATIVE": "off"}
    environment.pop("MAMBAIR_SCAN_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marker, "tests/ops/test_triton_kernels.py"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, report
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 5, report


def test_kernels_interpreted(repository) -> None:
    run_kernels(repository, "not slow")


@pytest.mark.slow
def test_larger_shapes_interpreted(repository) -> None:
    run_kernels(repository, "slow")
