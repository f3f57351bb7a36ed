"""Time and peak memory of one forward pass, in a process of its own: a process never forgets its highest peak."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import nn

from mambair.profiling.target import Target
from mambair.system.own_code import import_modules, imported_modules
from mambair.system.process_memory import PeakMemory, keep_freed_memory
from mambair.system.safe_spawn import spawning
from mambair.system.tables import first_line

WARM_UP_SIDE = 32


class ForwardPassError(RuntimeError):
    """The measured process ended early, or the network failed; the message says what was seen."""


@dataclass(frozen=True)
class Settings:
    """How a forward pass is measured.

    Attributes:
        shape: of the input, [B, C, H, W].
        dtype: name of a torch dtype: float32, or bfloat16 / float16 through autocast.
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

    The process imports what this one has imported of the user's own code, and is killed if this one is interrupted.

    Raises:
        ForwardPassError: the network failed, or the process was killed, probably because it ran out of memory.
    """
    with spawning() as context:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (sender, imported_modules(), run_here, target, settings)
        process = context.Process(target=_send_result, args=arguments, daemon=True)
        process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        raise ForwardPassError(
            "the process was killed, probably because it ran out of memory; try a smaller size"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, ForwardPass):
        return outcome
    raise ForwardPassError(f"the network failed: {outcome}")


def _send_result(
    sender: Connection,
    modules: tuple[str, ...],
    run: Callable[[Target, Settings], ForwardPass],
    target: Target,
    settings: Settings,
) -> None:
    """In the other process: send the measurement, or one line about what the network raised."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    try:
        import_modules(modules)
        outcome: ForwardPass | str = run(target, settings)
    except Exception as error:  # whatever a network raises, the user's own networks included
        outcome = first_line(error)
    sender.send(outcome)


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
    dtype = getattr(torch, settings.dtype)
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
