"""What forward and backward share: which tokens and channels a program has, its steps, the recurrence over one tile.

A program is one warp with a channel in each thread and the 16 tokens of a tile in the registers of every thread, so
that no number passes between threads. The state passes from tile to tile through memory, so that N may be of any size.
A sequence is one (image, direction) or one (sample, group of channels): number ``batch * count + k``.
"""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from mambair.ops.triton_kernels.arithmetic import decay_of, rows, softplus
from mambair.ops.triton_kernels.packing import indexed, places


@triton.jit
def tokens_of(first, length, height, width, direction, index, batch,
              INDEXED: tl.constexpr, NARROW: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """Pixel numbers and existence [TOKENS] of the tokens of a tile."""
    valid = first + tl.arange(0, TOKENS) < length
    place = places(first, length, height, width, direction, NARROW, TOKENS)
    return indexed(place, valid, index, batch, length, INDEXED), valid


@triton.jit
def load_tile(pointer, pixels, channel, valid, exists):
    """Numbers [TOKENS, CHANNELS] in float32, 0 where there is no token or channel."""
    here = valid[:, None] & exists[None, :]
    return tl.load(pointer + pixels[:, None] + channel[None, :], mask=here, other=0.0).to(tl.float32)


@triton.jit
def raw_steps(given, packed, weight, bias, channels, rank, channel, exists,
              GIVEN: tl.constexpr, BIASED: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """Steps [TOKENS, CHANNELS] before the softplus: given ones, or rows 0 ... rank - 1 of the tile times the weights.

    weight [rank, channels] and bias [channels] are those of the sequence, ``packed`` is the tile.
    """
    steps = given
    if BIASED:
        steps += tl.load(bias + channel, mask=exists, other=0.0)[None, :]
    if not GIVEN:
        for r in range(rank):
            numbers = tl.load(packed + r * TOKENS + tl.arange(0, TOKENS))
            steps += numbers[:, None] * tl.load(weight + r * channels + channel, mask=exists, other=0.0)[None, :]
    return steps


@triton.jit
def masked_steps(raw, valid, exists, SOFTPLUS: tl.constexpr):
    """Steps; 0 where there is no token or channel, so that the state stays as it is there."""
    steps = raw
    if SOFTPLUS:
        steps = softplus(raw)
    return tl.where(valid[:, None] & exists[None, :], steps, 0.0)


@triton.jit
def states_of_tile(steps, drive, rate, b, state, TOKENS: tl.constexpr):
    """The states after the tokens of a tile [TOKENS, CHANNELS] and after the last one [CHANNELS].

    steps, drive [TOKENS, CHANNELS]; rate (times log2(e)), state [CHANNELS]; b [TOKENS].
    """
    w, near = decay_of(steps * rate[None, :])
    entering = drive * b[:, None]
    states, token = entering, tl.arange(0, TOKENS)[:, None]
    for j in tl.static_range(TOKENS):
        w_j, near_j, entering_j = rows(w, near, entering, j, TOKENS)
        state = (w_j * state + entering_j) + tl.where(near_j > 0.5, state, 0.0)
        states = tl.where(token == j, state[None, :], states)
    return states, state
