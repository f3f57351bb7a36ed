"""From tensors to launches: cutting a scan into segments, strides, scratch memory, and the order of the kernels.

Sizes are chosen from the shapes alone, never from the device, so that every GPU adds in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mambair.ops.operators import STATE_CHUNK
from mambair.ops.triton_kernels import backward, forward, packing, segment_scan
from mambair.ops.triton_kernels.arithmetic import LOG2E

TOKENS = 16  # of a tile
CHANNELS = 32  # of a program: one for each thread of a warp
CHUNK_TILES = STATE_CHUNK // TOKENS
PROGRAMS = 2048  # that many warps, about 16 for each multiprocessor of a large GPU, are enough to hide latencies
CARRY_STEPS = 16
ADD_BLOCK = 1024
PACK_ROWS = 32
MOST_DIRECTIONS = 31  # two bits each in a positive 64-bit number


@dataclass(frozen=True)
class Sizes:
    """A scan as the kernels see it: B x K sequences of D channels; a sequence of tokens is an image of one row."""

    batch: int
    count: int  # K directions, or groups of channels
    height: int
    width: int
    channels: int
    state_size: int
    rank: int
    directions: tuple[int, ...]
    segments: int = field(init=False)
    tiles: int = field(init=False)  # of a segment
    groups: int = field(init=False)  # of channel blocks; each adds to its own copy of the gradients of B and C

    def __post_init__(self) -> None:
        chunks = _ceil(self.length, STATE_CHUNK)
        wanted = _ceil(PROGRAMS, max(1, self.batch * self.count * self.blocks))
        chunks_each = _ceil(chunks, min(wanted, chunks))
        segments = _ceil(chunks, chunks_each)
        blocks_each = max(1, self.batch * self.count * segments * self.blocks // PROGRAMS)
        object.__setattr__(self, "tiles", chunks_each * CHUNK_TILES)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "groups", _ceil(self.blocks, min(self.blocks, blocks_each)))

    @property
    def length(self) -> int:
        return self.height * self.width

    @property
    def blocks(self) -> int:
        return _ceil(self.channels, CHANNELS)

    @property
    def all_tiles(self) -> int:
        return _ceil(self.length, TOKENS)

    @property
    def rows(self) -> int:
        return self.rank + 2 * self.state_size

    @property
    def narrow(self) -> bool:
        """Whether 16 tokens may lie in more than two lines of the image."""
        return min(self.height if d % 2 else self.width for d in self.directions) < TOKENS

    @property
    def packed_directions(self) -> int:
        return sum(d << (2 * k) for k, d in enumerate(self.directions))

    def flat(self, strides: tuple[int, ...]) -> bool:
        """Whether pixels lie evenly spaced behind each other, given the strides of image, row and column."""
        return self.height == 1 or strides[1] == self.width * strides[2]

    def scalars(self) -> tuple[int, ...]:
        """The leading numbers of every kernel over segments."""
        return (self.length, self.height, self.width, self.packed_directions, self.count, self.channels,
                self.state_size, self.rank, self.segments, self.tiles)  # fmt: skip

    def slots(self, like: Tensor) -> Tensor:
        """Zeros [B, K, segments, N, D]: one running state for each segment."""
        return like.new_zeros((self.batch, self.count, self.segments, self.state_size, self.channels),
                              dtype=torch.float32)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What a scan reads. x [B, H, W, (K,) D] and gate, steps [B, 1, L, K D]; parameters as the kernels want them.

    ``x_strides`` and those of the gradient are those of image, row, column and sequence.
    """

    sizes: Sizes
    x: Tensor
    x_strides: tuple[int, int, int, int]
    packed: Tensor  # [B, K, all tiles, rank + 2 N, TOKENS]
    rates: Tensor  # [K, N, D], A times log2(e)
    weight: Tensor | None  # [K, rank, D]
    bias: Tensor | None  # [K, D]
    skip: Tensor | None  # [K, D]
    steps: Tensor | None = None
    gate: Tensor | None = None
    index: Tensor | None = None
    softplus: bool = True

    def flags(self, strides: tuple[int, int, int, int]) -> dict[str, bool | int]:
        """Constants of the kernels; FLAT says whether x, or the gradient of these strides, has evenly spaced pixels."""
        flat = self.sizes.flat(self.x_strides) and self.sizes.flat(strides)
        return {"GIVEN": self.steps is not None, "BIASED": self.bias is not None, "SOFTPLUS": self.softplus,
                "INDEXED": self.index is not None, "NARROW": self.sizes.narrow, "FLAT": flat,
                "TOKENS": TOKENS, "CHANNELS": CHANNELS}  # fmt: skip

    def pointer(self, t: Tensor | None) -> Tensor:
        """Something to point at for an argument that the flags switch off."""
        return self.packed if t is None else t


def launch(kernel: Any, programs: tuple[int, ...], numbers: Iterable[object], constants: Mapping[str, object],
           warps: int = 1) -> None:  # fmt: skip
    """Start a kernel. Fused multiply-add is asked for, as its default differs between versions of Triton; loads may
    not move to earlier turns of a loop, as some read what the turn before wrote."""
    kernel[programs](*numbers, **constants, num_warps=warps, num_stages=1, enable_fp_fusion=True)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _strides(t: Tensor | None) -> tuple[int, int]:
    """Of sample and token of a sequence [B, L, D], or anything."""
    return (0, 0) if t is None else (t.stride(0), t.stride(1))


def dense_rows(t: Tensor) -> Tensor:
    """The tensor itself if its last stride is 1, else a copy."""
    return t if t.stride(-1) == 1 or t.shape[-1] <= 1 else t.contiguous()


def _tiles(sizes: Sizes) -> tuple[int]:
    return (sizes.batch * sizes.count * sizes.all_tiles,)


def _packing(sizes: Sizes, index: Tensor | None, strides: tuple[int, ...]) -> dict[str, bool | int]:
    return {
        "INDEXED": index is not None,
        "NARROW": sizes.narrow,
        "FLAT": sizes.flat(strides),
        "TOKENS": TOKENS,
        "BLOCK": PACK_ROWS,
    }


def pack(sizes: Sizes, sources: Iterable[tuple[Tensor, tuple[int, ...]]], index: Tensor | None) -> Tensor:
    """Sources (tensor and strides of image, row, column, sequence; last dimension dense) below each other, packed."""
    sources = list(sources)
    packed = sources[0][0].new_empty(
        (sizes.batch, sizes.count, sizes.all_tiles, sizes.rows, TOKENS), dtype=torch.float32
    )
    first = 0
    for source, strides in sources:
        rows = source.shape[-1]
        numbers = (source, packed, packed if index is None else index, *sizes.scalars()[:5], rows, first, sizes.rows,
                   *strides)  # fmt: skip
        launch(packing.pack, _tiles(sizes), numbers, _packing(sizes, index, strides))
        first += rows
    return packed


def unpack(
    sizes: Sizes, parts: Tensor, targets: Iterable[tuple[Tensor, tuple[int, ...]]], index: Tensor | None
) -> None:
    """The opposite of :func:`pack`, over the sum of parts [groups, B, K, tiles, rows, TOKENS]."""
    first = 0
    for target, strides in targets:
        rows = target.shape[-1]
        numbers = (parts, target, parts if index is None else index, *sizes.scalars()[:5], rows, first, sizes.rows,
                   len(parts), *strides)  # fmt: skip
        launch(packing.unpack, _tiles(sizes), numbers, _packing(sizes, index, strides))
        first += rows


def _carry(inputs: Inputs, slots: Tensor, totals: Tensor, *, backwards: bool) -> None:
    s = inputs.sizes
    numbers = (slots, totals, inputs.rates, s.count, s.channels, s.state_size, s.segments)
    constants = {"BACKWARDS": backwards, "STEPS": CARRY_STEPS, "CHANNELS": CHANNELS}
    launch(segment_scan.carry, (s.batch * s.count * s.state_size * s.blocks,), numbers, constants)


def scan(
    inputs: Inputs, slots: Tensor, y: Tensor, y_strides: tuple[int, int, int], states: Tensor | None,
    states_strides: tuple[int, int, int, int],
) -> None:  # fmt: skip
    """Run forward from the state in slot 0; writes y, the chunks' states if wanted; the last slot gets the last state.

    y_strides: of image, pixel and sequence; states_strides: of image, sequence, chunk and state.
    """
    s = inputs.sizes
    programs = s.batch * s.count * s.blocks
    common = (inputs.packed, inputs.pointer(inputs.index), inputs.rates, inputs.pointer(inputs.weight),
              inputs.pointer(inputs.bias))  # fmt: skip
    if s.segments > 1:
        totals = slots.new_empty((s.batch, s.count, s.segments, s.channels))
        numbers = (inputs.x, inputs.pointer(inputs.steps), *common, slots, totals, *s.scalars(), *inputs.x_strides,
                   *_strides(inputs.steps))  # fmt: skip
        launch(forward.segment_ends, (programs * (s.segments - 1),), numbers, inputs.flags(inputs.x_strides))
        _carry(inputs, slots, totals, backwards=False)
    numbers = (inputs.x, inputs.pointer(inputs.steps), inputs.pointer(inputs.gate), *common,
               inputs.pointer(inputs.skip), slots, y, slots if states is None else states, *s.scalars(),
               *inputs.x_strides, *_strides(inputs.steps), *_strides(inputs.gate), *y_strides,
               *states_strides)  # fmt: skip
    more = {"GATED": inputs.gate is not None, "SKIP": inputs.skip is not None, "SAVE": states is not None}
    more |= {"CHUNK_TILES": CHUNK_TILES}
    launch(forward.outputs, (programs * s.segments,), numbers, inputs.flags(inputs.x_strides) | more)


@dataclass(frozen=True)
class Gradients:
    """What backward writes: at the places of the tokens (dx, steps, gate), packed, and the sums over tokens."""

    x: Tensor
    strides: tuple[int, int, int]  # of image, pixel and sequence
    packed: Tensor  # [groups, B, K, all tiles, rows, TOKENS]
    parameters: Tensor  # [B, K, segments, N + rank + 2, D]
    steps: Tensor | None = None
    gate: Tensor | None = None

    def rates(self, sizes: Sizes) -> Tensor:
        """Gradient of A [K, D, N]."""
        return self.parameters[..., : sizes.state_size, :].sum((0, 2)).transpose(1, 2).contiguous()

    def weight(self, sizes: Sizes) -> Tensor:
        """Gradient of the step projection [K, D, rank]."""
        return self.parameters[..., sizes.state_size : -2, :].sum((0, 2)).transpose(1, 2).contiguous()

    def bias(self) -> Tensor:
        return self.parameters[..., -2, :].sum((0, 2))

    def skip(self) -> Tensor:
        return self.parameters[..., -1, :].sum((0, 2))


def new_gradients(
    inputs: Inputs, x: Tensor, strides: tuple[int, int, int], steps: Tensor | None = None, gate: Tensor | None = None
) -> Gradients:
    """Memory for the gradients of a scan besides those at the places of the tokens, which are given."""
    s = inputs.sizes
    packed = inputs.packed.new_empty((s.groups, *inputs.packed.shape))
    parameters = inputs.packed.new_zeros((s.batch, s.count, s.segments, s.state_size + s.rank + 2, s.channels))
    return Gradients(x, strides, packed, parameters, steps, gate)


def scan_backward(
    inputs: Inputs, grad: Tensor, grad_strides: tuple[int, int, int, int], states: Tensor,
    states_strides: tuple[int, int, int, int], slots: Tensor, grads: Gradients,
) -> None:  # fmt: skip
    """Run backward from the gradient of the last state in the last slot; slot 0 becomes that of the first state."""
    s = inputs.sizes
    common = (inputs.packed, inputs.pointer(inputs.index), inputs.rates, inputs.pointer(inputs.weight),
              inputs.pointer(inputs.bias))  # fmt: skip
    steps, gate = inputs.pointer(inputs.steps), inputs.pointer(inputs.gate)
    given = (*grad_strides, *_strides(inputs.steps), *_strides(inputs.gate))
    gated = {"GATED": inputs.gate is not None}
    if s.segments > 1:
        totals = slots.new_empty((s.batch, s.count, s.segments, s.channels))
        programs = s.batch * s.count * s.blocks * (s.segments - 1)
        numbers = (grad, steps, gate, *common, slots, totals, *s.scalars(), *given)
        launch(backward.segment_starts, (programs,), numbers, inputs.flags(grad_strides) | gated)
        _carry(inputs, slots, totals, backwards=True)
    items = s.batch * s.count * s.segments * s.groups
    programs = min(items, PROGRAMS)
    scratch = slots.new_empty((programs, CHUNK_TILES, s.state_size, CHANNELS))
    numbers = (grad, inputs.x, steps, gate, *common, inputs.pointer(inputs.skip), states, slots, scratch, grads.x,
               inputs.pointer(grads.steps), inputs.pointer(grads.gate), grads.packed, grads.parameters, *s.scalars(),
               *inputs.x_strides, *given, *grads.strides, *states_strides, s.groups, items)  # fmt: skip
    more = {"SKIP": inputs.skip is not None, "CHUNK_TILES": CHUNK_TILES}
    launch(backward.gradients, (programs,), numbers, inputs.flags(grad_strides) | gated | more)


def add_directions(parts: Tensor, total: Tensor) -> None:
    """parts [B, K, H, W, D] float32 -> their sum over K, in the dtype of ``total`` [B, H, W, D]."""
    size = total[0].numel()
    programs = (_ceil(size, ADD_BLOCK), len(parts))
    launch(packing.add_directions, programs, (parts, total, size, parts.shape[1]), {"BLOCK": ADD_BLOCK}, warps=4)


def by_rate(A: Tensor) -> Tensor:
    """A [K, D, N] -> [K, N, D], times log2(e)."""
    return (A.float() * LOG2E.value).transpose(1, 2).contiguous()
