"""Time and peak memory of one forward pass, in a process of its own: a process never forgets its highest peak."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
from torch import nn

from mambair.profiling.target import Target
from mambair.system.process_memory import PeakMemory, keep_freed_memory

WARM_UP_SIDE = 32
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ForwardPassError(RuntimeError):
    """The measured process ended early, or the network failed; the message says what was seen."""


@dataclass(frozen=True)
class Settings:
    """How a forward pass is measured.

    Attributes:
        shape: of the input, [B, C, H, W].
        dtype: float32, or bfloat16 / float16 through autocast.
        device: as torch names it.
        threads: of the CPU; None leaves torch's choice.
        repeats: timed runs after one that warms up.
    """

    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    repeats: int = 3


@dataclass(frozen=True)
class ForwardPass:
    """What was measured.

    Attributes:
        seconds: the shortest run; ``median`` the middle one.
        peak_bytes: the most memory in use during the pass beyond that of the weights and the input; None where the
            system does not say.
        threads: of the CPU that were used.
        backend: that ran the scans.
    """

    seconds: float
    median: float
    peak_bytes: int | None
    threads: int
    backend: str


def measure_forward_pass(target: Target, settings: Settings) -> ForwardPass:
    """Build the network in a fresh process, and time it there.

    Raises:
        ForwardPassError: the network failed, or the process was killed (as a rule for want of memory).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(run_here, target, settings).result()
        except BrokenProcessPool as error:
            raise ForwardPassError(
                "the process was killed, as a rule for want of memory; try a smaller size"
            ) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ForwardPassError(f"the network failed: {str(error).strip().splitlines()[0]}") from error


def run_here(target: Target, settings: Settings) -> ForwardPass:
    """The measurement itself, in this process."""
    from mambair.ops import backends

    keep_freed_memory()  # as the commands that restore do
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    torch.manual_seed(0)
    net = target.build().to(device)
    image = torch.rand(settings.shape, device=device)
    small = image[..., :WARM_UP_SIDE, :WARM_UP_SIDE]
    _timed(net, small, settings)  # libraries and native code are loaded now
    watch = _CudaMemory(device) if device.type == "cuda" else PeakMemory()
    times = [_timed(net, image, settings)]
    peak = watch.growth()
    times = [_timed(net, image, settings) for _ in range(settings.repeats)] or times
    backend = backends.explain(device.type)[0]
    return ForwardPass(min(times), statistics.median(times), peak, torch.get_num_threads(), backend)


def _timed(net: nn.Module, image: torch.Tensor, settings: Settings) -> float:
    dtype = DTYPES[settings.dtype]
    device = image.device.type
    began = time.perf_counter()
    with torch.inference_mode(), torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        net(image)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


class _CudaMemory:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        self._before = torch.cuda.memory_allocated(device)

    def growth(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before
