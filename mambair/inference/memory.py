"""How much memory a network needs for a tile, and an image on its way; how much there is; errors for too little."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# how PyTorch, CUDA's libraries and the system put it
_WORDS = ("out of memory", "not enough memory", "defaultcpuallocator", "can't allocate memory", "_alloc_failed")
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or in the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def free_bytes(device: torch.device) -> int | None:
    """Memory that a tile on ``device`` may take, or None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [amount for amount in (_free_in_machine(), *(_free_in_group(*files) for files in _CGROUP_FILES)) if amount]
    return min(known, default=None)


def _free_in_machine() -> int | None:
    """Linux's own estimate of what can be taken without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_in_group(limit: str, used: str) -> int | None:
    """What a container's limit leaves; its cached files count as used, so this errs on the safe side."""
    try:
        most, now = (Path(name).read_text(encoding="ascii").strip() for name in (limit, used))
        return max(int(most) - int(now), 1)
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def bytes_on_the_way(height: int, width: int, *, scale: int, tile: int, collected: int) -> int:
    """Memory for an image of that size from decoding to encoding, without what the network needs for its tiles.

    Args:
        height, width: in pixels.
        scale: of the network.
        tile: the largest side of a tile, 0 for the whole image.
        collected: pixels of the result if it is collected before it is encoded, 0 if it is encoded strip by strip.
    """
    decoded = 20 * height * width  # RGBA of 8 bits while it is decoded, converted and split
    strip = width * min(height, tile or height) * scale**2
    blending = 36 * strip  # two rows of tiles in float32 RGB, and as much as one of them waiting as integers
    return decoded + blending + 4 * collected


def peak_bytes(net: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """The most bytes of tensors alive at once while ``net`` runs on ``x``, weights and ``x`` itself left out.

    What a kernel takes for itself and gives back is counted on CUDA only.
    """
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
        before = torch.cuda.memory_allocated(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        net(x)
        return torch.cuda.max_memory_allocated(x.device) - before
    with _LiveTensors(x) as live:
        net(x)
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages of all results of operators, from their making to their end."""

    def __init__(self, *left_out: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in left_out)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage not in self._known and storage._cdata not in given:
                    self._add(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage)
        self.now += storage.nbytes()
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size: int) -> None:
        self.now -= size
