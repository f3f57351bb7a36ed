"""Which code runs a scan: an ordered table of backends, each of which says why it declines a request.

``MAMBAIR_SCAN_BACKEND`` names one to force it. Nothing native is built or loaded before the first request.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from mambair.ops import autotune, chunked, mamba_ssm, operators, torch_private, triton_scan
from mambair.system.errors import RequestError

ENVIRONMENT_VARIABLE = "MAMBAIR_SCAN_BACKEND"
MANY_STATES = 256


@dataclass(frozen=True)
class Request:
    """What a backend must know to accept or decline a scan."""

    device: str  # "cpu", "cuda", ...
    double: bool = False  # an input is float64
    many_states: bool = False  # N > 256
    carries_state: bool = False  # an initial state is given, or the last one asked for
    compiling: bool = False  # torch.compile or torch.export is tracing
    transformed: bool = False  # a transform of torch.func or forward-mode differentiation is at work
    forced: bool = False  # the environment names the backend


@dataclass(frozen=True)
class Backend:
    """One row of the table. ``declines`` gives the reason, or None when the backend runs the request.

    ``selective_scan`` takes the arguments of the public function less ``return_last_state`` and returns y and the
    last state; ``ss2d_scan`` takes those of the public function, ``directions`` as a list.
    """

    name: str
    declines: Callable[[Request], str | None]
    selective_scan: Callable[..., tuple[Tensor, Tensor]]
    ss2d_scan: Callable[..., Tensor]


def _native_declines(request: Request) -> str | None:
    if request.device != "cpu":
        return f"it runs on the CPU, not on {request.device}"
    if request.double:
        return "it computes in float32, and an input is float64"
    if request.many_states:
        return f"it holds up to {MANY_STATES} numbers of state for a channel, and A has more"
    if request.transformed:
        return "transforms of torch.func and forward-mode derivatives cannot pass through an operator"
    from mambair.ops import native  # found, compiled and loaded only when a scan on the CPU asks for it

    return None if native.load() else native.why_not() or "the native library could not be loaded"


def _triton_declines(request: Request) -> str | None:
    if request.double:
        return "it computes in float32, and an input is float64"
    if request.many_states:
        return f"it holds up to {MANY_STATES} numbers of state for a channel, and A has more"
    if request.transformed:
        return "transforms of torch.func and forward-mode derivatives cannot pass through an operator"
    reason = triton_scan.why_not(request.device, forced=request.forced)
    if reason is None:
        triton_scan.load(request.device)
    return reason


def _mamba_ssm_declines(request: Request) -> str | None:
    if request.device != "cuda":
        return f"it runs on CUDA devices, not on {request.device}"
    if request.double:
        return "it computes in float32, and an input is float64"
    if request.many_states:
        return f"it holds up to {MANY_STATES} numbers of state for a channel, and A has more"
    if request.compiling:
        return "torch.compile and torch.export cannot trace its kernel"
    if request.transformed:
        return "transforms of torch.func and forward-mode derivatives cannot pass through its kernel"
    if request.carries_state:
        return "it takes no initial state and has no gradient of the last one"
    return mamba_ssm.why_not()


def _torch_declines(request: Request) -> str | None:
    return None


BACKENDS = (
    Backend("native", _native_declines, operators.selective_scan, operators.ss2d_scan),
    Backend("triton", _triton_declines, operators.selective_scan, operators.ss2d_scan),
    Backend("mamba_ssm", _mamba_ssm_declines, mamba_ssm.selective_scan, mamba_ssm.ss2d_scan),
    Backend("torch", _torch_declines, chunked.selective_scan, chunked.ss2d_scan),
)
_BY_NAME = {backend.name: backend for backend in BACKENDS}
# tensors on the meta device have a shape and no numbers: there the operators' fake implementations are all it takes
SHAPES_ONLY = Backend("shapes", _torch_declines, operators.selective_scan, operators.ss2d_scan)


def choose(
    tensors: Sequence[Tensor],
    *,
    states: int,
    carries_state: bool = False,
    run: Callable[[Backend], Tensor] | None = None,
    extra: tuple[object, ...] = (),
) -> Backend:
    """The first backend of the table that runs a scan of these tensors, or the one the environment forces.

    Where mamba_ssm's kernel could take the place of Triton's, ``run`` is used to measure both, once for every shape
    (and ``extra``: what else tells scans apart), and mamba_ssm is chosen if it is clearly faster.

    Raises:
        RequestError: The forced backend does not exist, or why it cannot run this scan.
    """
    device = tensors[0].device.type
    if device == "meta":
        return SHAPES_ONLY
    double = any(t.dtype == torch.float64 for t in tensors)
    forced = os.environ.get(ENVIRONMENT_VARIABLE, "")
    many_states = True if states > MANY_STATES else False  # noqa: SIM210, a plain bool also of a symbolic number
    compiling = torch.compiler.is_compiling()
    # an operator would refuse the gradients of torch.func, and silently lose forward-mode ones
    transformed = not compiling and torch_private.is_transformed()
    name = _choose(forced, device, double, many_states, carries_state, compiling, transformed)
    if name == "triton" and not forced and not compiling and run is not None:
        name = _measured(
            Request(device, double, many_states, carries_state, compiling, transformed), run, tensors, extra
        )
    return _BY_NAME[name]


def _measured(
    request: Request, run: Callable[[Backend], Tensor], tensors: Sequence[Tensor], extra: tuple[object, ...]
) -> str:
    if _mamba_ssm_declines(request) is not None:
        return "triton"
    return autotune.faster(("triton", "mamba_ssm"), lambda name: run(_BY_NAME[name]), tensors, extra)


def explain(device: str) -> tuple[str, dict[str, str | None]]:
    """The backend chosen for float32 scans on a kind of device, and why each other one declines (None: it would run).

    Raises:
        RequestError: The forced backend does not exist, or why it cannot run there.
    """
    request = Request(device)
    return _search(os.environ.get(ENVIRONMENT_VARIABLE, ""), request), {b.name: b.declines(request) for b in BACKENDS}


def _choose(forced: str, device: str, *flags: bool) -> str:
    return _search(forced, Request(device, *flags))


torch_private.as_constant_when_compiled(_choose)  # or torch.compile would trace the search


@lru_cache(maxsize=256)
def _search(forced: str, request: Request) -> str:
    if forced:
        return _forced(forced, request)
    name = next(backend.name for backend in BACKENDS if backend.declines(request) is None)
    if name == "torch" and request == Request("cpu", carries_state=request.carries_state, compiling=request.compiling):
        _warn_without_native()
    return name


def _forced(name: str, request: Request) -> str:
    if name not in _BY_NAME:
        raise RequestError(f"{ENVIRONMENT_VARIABLE}={name}: there is no such backend; there are {', '.join(_BY_NAME)}")
    reason = _BY_NAME[name].declines(replace(request, forced=True))
    if reason is not None:
        raise RequestError(f"{ENVIRONMENT_VARIABLE}={name}: this backend cannot run the scan: {reason}")
    return name


@lru_cache(maxsize=1)
def _warn_without_native() -> None:
    if os.environ.get("MAMBAIR_NATIVE") == "off":
        return  # as wished
    reason = _native_declines(Request("cpu"))
    warnings.warn(
        f"mambair: scans run on the slower pure-torch path, as the native library is not available: {reason}",
        stacklevel=6,  # who called the scan
    )
