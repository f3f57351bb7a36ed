"""Multiply-accumulates of a network, module by module, counted on tensors that have a shape and no numbers.

Counted: every multiplication, with or without an addition after it, in convolutions, linear layers, products of
matrices, attention and selective scans. Not counted: additions alone, exponentials and other functions, norms, and
products pixel by pixel (gates, residual weights). The scan, for each token, direction and channel, with N states and
R numbers before the step size: R for the step size, 1 for step * u, N each for step * A, (step * u) * B, decay * state
and C * state, 1 for D * u:  R + 4 N + 2  (1 more for a gate inside the scan).

``as_published`` adds up as the papers' tables do, which counted with fvcore: 9 N + 1 for the scan after its step size,
5 for each number in a layer norm, 1 for each in a global mean, and MambaIRv2's choice of a prompt as a product of
matrices. It equals their figures; see docs/benchmarking.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mambair.layers.attentive_scan import AttentiveStateSpace
from mambair.system.errors import RequestError
from mambair.system.tables import first_line

SCAN = "scan"
KINDS = {
    "convolution": "convolution",
    "mm": "matrix product",
    "addmm": "matrix product",
    "bmm": "matrix product",
    "baddbmm": "matrix product",
    "ss2d_scan": SCAN,
    "selective_scan": SCAN,
}
LAYER_NORM, POOLING = 5, 1  # what the published counts take for each number


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of one forward pass.

    Attributes:
        total: by this module's definition.
        as_published: by the papers' way of counting.
        by_module: for every module that counts anything, by its name in the network, everything below it included.
        by_kind: convolution, matrix product, attention, scan.
    """

    total: int
    as_published: int
    by_module: Mapping[str, int]
    by_kind: Mapping[str, int]


def ss2d_scan_macs(x: Sequence[int], states: int, rank: int, directions: int) -> int:
    """Multiplications of ``mambair.ops.ss2d_scan`` on x [B, H, W, D]."""
    batch, height, width, channels = x
    return batch * height * width * channels * directions * (rank + 4 * states + 2)


def selective_scan_macs(u: Sequence[int], states: int, *, skip: bool, gate: bool) -> int:
    """Multiplications of ``mambair.ops.selective_scan`` on u [B, L, D], whose step sizes are given."""
    batch, length, channels = u
    return batch * length * channels * (4 * states + 1 + skip + gate)


def count_macs(net: nn.Module, shape: Sequence[int]) -> Count:
    """Count one forward pass of ``net`` on an input of ``shape`` without computing it, whatever the size.

    Args:
        net: any network whose operations work on the meta device; its tensors are left as they are.
        shape: of the input, [B, C, H, W].

    Raises:
        RequestError: the network cannot run there, or not on that shape.
    """
    scans = _Scans()
    counter = FlopCounterMode(display=False, custom_mapping=scans.formulas())
    try:
        with torch.no_grad(), _extras(net) as extras, counter:
            functional_call(net, _without_numbers(net), (torch.empty(tuple(shape), device="meta"),))
    except Exception as error:  # the network may be anyone's code
        raise RequestError(f"{type(net).__name__} cannot be counted on {list(shape)}: {first_line(error)}") from error
    flops = counter.get_flop_counts()
    by_kind: defaultdict[str, int] = defaultdict(int)
    for operation, value in flops.get("Global", {}).items():
        by_kind[_kind(operation)] += value // 2
    total = sum(by_kind.values())
    root = type(net).__name__ + "."
    by_module = {
        name.removeprefix(root): sum(found.values()) // 2
        for name, found in flops.items()
        if name not in ("Global", root[:-1])
    }
    as_published = total + scans.published_surplus + extras.total
    return Count(total, as_published, by_module, dict(by_kind))


def count_parameters(net: nn.Module) -> int:
    """Every number that is trained, whether a layer's weight or a bare parameter; shared ones once."""
    return sum(parameter.numel() for parameter in net.parameters())


class _Scans:
    """Formulas of the scan operators for torch's counter, which counts two for a multiplication and an addition."""

    def __init__(self) -> None:
        self.published_surplus = 0

    def formulas(self) -> dict[Any, Callable[..., int]]:
        return {torch.ops.mambair.ss2d_scan: self._two_dimensional, torch.ops.mambair.selective_scan: self._along}

    def _two_dimensional(self, x, projection, dt_weight, dt_bias, A, D, *options, out_shape=None) -> int:  # shapes
        directions, _, rank = dt_weight
        macs = ss2d_scan_macs(x, A[2], rank, directions)
        batch, height, width, channels = x
        published = batch * height * width * channels * directions * (rank + 9 * A[2] + 1)
        self.published_surplus += published - macs
        return 2 * macs

    def _along(self, u, delta, A, B, C, D, z, *options, out_shape=None) -> int:  # shapes, None where absent
        macs = selective_scan_macs(u, A[1], skip=D is not None, gate=z is not None)
        batch, length, channels = u
        published = batch * length * channels * (9 * A[1] + (D is not None) + (z is not None))
        self.published_surplus += published - macs
        return 2 * macs


class _Extras:
    """What the published counts take for layers that are no product of matrices."""

    def __init__(self) -> None:
        self.total = 0

    def layer_norm(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.total += LAYER_NORM * inputs[0].numel()

    def pooling(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.total += POOLING * inputs[0].numel()

    def prompts(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, AttentiveStateSpace)
        batch, height, width, _ = inputs[0].shape
        self.total += batch * height * width * module.num_tokens * module.selectiveScan.d_state


@contextmanager
def _extras(net: nn.Module) -> Iterator[_Extras]:
    extras = _Extras()
    hooks = []
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            hooks.append(module.register_forward_pre_hook(extras.layer_norm))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            hooks.append(module.register_forward_pre_hook(extras.pooling))
        elif isinstance(module, AttentiveStateSpace):
            hooks.append(module.register_forward_pre_hook(extras.prompts))
    try:
        yield extras
    finally:
        for hook in hooks:
            hook.remove()


def _without_numbers(net: nn.Module) -> dict[str, Tensor]:
    """Shapes of all parameters and buffers, for one call of the network with them in place of its own."""
    return {
        name: torch.empty_like(tensor, device="meta")
        for tensors in (net.named_parameters(), net.named_buffers())
        for name, tensor in tensors
    }


def _kind(operation: Any) -> str:
    name = str(operation).split(".")[-1]
    return KINDS.get(name, "attention" if "attention" in name else name)
