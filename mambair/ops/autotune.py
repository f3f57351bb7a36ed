"""Which of two backends is faster for a scan: measured once for every shape, on the GPU and tensors at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name")
REPEATS = 5
MARGIN = 0.9  # a challenger must take less than this part of the first one's time: noise should not decide

_results: dict[tuple[object, ...], object] = {}


def faster(
    names: Sequence[Name], run: Callable[[Name], Tensor], tensors: Sequence[Tensor], extra: tuple[object, ...] = ()
) -> Name:
    """The name whose ``run`` is fastest on these tensors, forward or, where a gradient is needed, forward and backward.

    The first one stays unless another takes less than 0.9 of its time. Remembered for the process by device, shapes,
    dtypes, need of a gradient and ``extra``. While a CUDA graph is being captured nothing is measured and the first
    one runs.

    Args:
        names: Candidates, the preferred one first.
        run: Runs the scan by a candidate; what a candidate raises is raised.
        tensors: All arguments of the scan, on one CUDA device.
        extra: What else tells scans apart (directions, softplus ...).
    """
    wanting = [t for t in tensors if t.requires_grad] if torch.is_grad_enabled() else []
    key = (tensors[0].device, tuple((tuple(t.shape), t.dtype, t.requires_grad) for t in tensors), bool(wanting), extra)
    if key not in _results:
        if torch.cuda.is_current_stream_capturing():
            return names[0]
        with torch.cuda.device(tensors[0].device):
            times = {name: _time(name, run, wanting) for name in names}
        best = min(names, key=lambda name: times[name])
        _results[key] = best if times[best] < MARGIN * times[names[0]] else names[0]
    return _results[key]  # type: ignore[return-value]


def _time(name: Name, run: Callable[[Name], Tensor], wanting: Sequence[Tensor]) -> float:
    """Least time of a few runs, in milliseconds; the first, which may compile, does not count."""
    least = float("inf")
    for turn in range(REPEATS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        y = run(name)
        if wanting:
            torch.autograd.grad(y, wanting, torch.ones_like(y), allow_unused=True)
        end.record()
        end.synchronize()
        least = min(least, start.elapsed_time(end)) if turn else least
    return least
