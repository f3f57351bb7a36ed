"""What a process held at most, and whether glibc keeps what is freed: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mambair.system.process_memory import bound_kernel_caches

MEGABYTE = 2**20
# takes and frees 120 MiB in blocks of 24, as a network does layer by layer; counts the pages that were mapped anew
FAULTS = """
import ctypes, resource, sys
from mambair.system.process_memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def layers(size=24 * 2**20):
    for _ in range(10):
        blocks = [libc.malloc(size) for _ in range(5)]
        for block in blocks:
            libc.memset(block, 1, size)
        for block in blocks:
            libc.free(block)

done = keep_freed_memory() if sys.argv[1] == "keep" else None
layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PEAK = """
import torch
from mambair.system.process_memory import PeakMemory, highest_bytes

torch.zeros(64 * 2**18)  # 64 MiB that are gone before the measurement
memory = PeakMemory()
a = torch.zeros(24 * 2**18)
del a
b = torch.zeros(8 * 2**18)
print(memory.growth(), highest_bytes())
"""


def run(code: str, *arguments: str, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="not glibc")
class TestKeepFreedMemory:
    def test_pages_are_mapped_once(self) -> None:
        done, faults = run(FAULTS, "keep")
        assert done == "True"
        mapped = 10 * 5 * 6144
        assert int(faults) < mapped / 100
        _, faults = run(FAULTS, "leave")
        assert int(faults) > mapped / 2

    def test_wishes_of_the_environment_win(self) -> None:
        done, _ = run(FAULTS, "keep", MALLOC_TRIM_THRESHOLD_="131072")
        assert done == "False"
        done, _ = run(FAULTS, "keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")
        assert done == "False"


def test_caches_of_kernels_are_bounded_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    bound_kernel_caches()
    assert (os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"]) == ("7", "128")
    monkeypatch.delenv("LRU_CACHE_CAPACITY")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark cannot be reset")
def test_growth_is_that_since_the_beginning() -> None:
    growth, highest = map(int, run(PEAK))
    # not the 64 before; the two are alive one after the other; some pages may have been held, free, before
    assert 22 * MEGABYTE < growth < 40 * MEGABYTE
    assert highest > growth
