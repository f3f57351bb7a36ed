"""From where segments end when they start from zero to where they really start: a short scan over segments."""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from mambair.ops.triton_kernels.arithmetic import rows


@triton.jit(do_not_specialize=["count", "channels", "state_size", "segments"])
def carry(slots, totals, rates, count, channels, state_size, segments,
          BACKWARDS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """In place: slot s + 1 += exp(A * total of segment s) * slot s, or the same from the last slot to the first.

    slots [B, K, segments, N, D], totals [B, K, segments, D], rates [K, N, D] (A times log2(e)).
    """
    blocks = tl.cdiv(channels, CHANNELS)
    item = tl.program_id(0)
    channel = (item % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    n, sequence = (item // blocks) % state_size, item // blocks // state_size
    k = (sequence % count).to(tl.int64)
    rate = tl.load(rates + (k * state_size + n) * channels + channel, mask=exists, other=0.0)
    first = sequence.to(tl.int64) * segments
    start = 0
    if BACKWARDS:
        start = segments - 1
    state = tl.load(slots + ((first + start) * state_size + n) * channels + channel, mask=exists, other=0.0)
    for begin in range(1, segments, STEPS):
        step = begin + tl.arange(0, STEPS)
        target = first + step
        through = target - 1
        if BACKWARDS:
            target = first + segments - 1 - step
            through = target + 1
        here = (step < segments)[:, None] & exists[None, :]
        decay = tl.load(totals + through[:, None] * channels + channel[None, :], mask=here, other=0.0)
        decay = tl.exp2(decay * rate[None, :] * 0.5)  # of half a segment: where A > 0, that of a whole one may overflow
        to = slots + (target[:, None] * state_size + n) * channels + channel[None, :]
        ends = tl.load(to, mask=here, other=0.0)
        states = ends
        for j in tl.static_range(STEPS):
            decay_j, end_j, _ = rows(decay, ends, ends, j, STEPS)
            state = tl.where(state == 0.0, 0.0, decay_j * (decay_j * state)) + end_j
            states = tl.where(tl.arange(0, STEPS)[:, None] == j, state[None, :], states)
        tl.store(to, states, mask=here)
