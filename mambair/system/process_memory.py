"""The memory of this process: how much it held at most, and what the allocator and torch keep of it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# parameters of mallopt, from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**25  # bytes; glibc takes no more, larger blocks always come from the system
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let the allocator keep up to a gigabyte that is free, where it would hand it back to the system at once.

    A network on a CPU frees and takes the same tens of megabytes in each layer. By default glibc returns them to the
    system each time, which then clears and maps every page anew. To be called at the start of a program, as the
    commands of this package do; a library's callers decide for themselves.

    Returns:
        Whether it was done: glibc is asked on Linux only, and not where its environment variables say what is wanted.
    """
    wishes = "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    if sys.platform != "linux" or wishes:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def bound_kernel_caches() -> None:
    """Let torch's convolutions on the CPU keep what they prepared for the last 128 shapes of their inputs, not 1,024.

    Images of ever new sizes otherwise grow the process by hundreds of megabytes. To be called by a program before its
    first convolution; environment variables that are set already stay as they are.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")


class PeakMemory:
    """The growth of this process; on Linux from what it holds now, elsewhere from the highest it ever held."""

    def __init__(self) -> None:
        try:
            _RESET.write_text("5\n", encoding="ascii")  # the high-water mark falls to what is resident
            self._before = _status("VmRSS")
        except OSError:  # another system, or not allowed
            self._before = highest_bytes()

    def growth(self) -> int | None:
        """Bytes held at most since then, beyond what was held then; None where the system does not tell."""
        after = highest_bytes()
        return None if after is None or self._before is None else max(0, after - self._before)


def highest_bytes() -> int | None:
    """The most bytes this process has held, or None where the system does not tell.

    Linux's getrusage would count those of the process before an exec, too.
    """
    if _STATUS.is_file():
        return _status("VmHWM")
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(field: str) -> int | None:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
