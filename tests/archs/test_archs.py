"""What importing ``mambair.archs`` does to the rest of the world."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

HEAVY = ("cv2", "timm", "torchvision", "basicsr", "pydantic")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_nothing_heavy_is_imported():
    loaded = run(f"import sys, mambair.archs; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="basicsr is not installed")
def test_a_basicsr_user_finds_our_networks():
    code = (
        "from mambair.registry import import_basicsr; import_basicsr(); import mambair.archs\n"
        "from basicsr.utils.registry import ARCH_REGISTRY; print(ARCH_REGISTRY.get('MambaIR').__module__)"
    )
    assert "mambair.archs.mambair_arch" in run(code)
