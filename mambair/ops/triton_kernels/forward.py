"""The forward scan of segments: where they end when they start from zero, and their outputs from the right start."""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from mambair.ops.triton_kernels.arithmetic import sigmoid
from mambair.ops.triton_kernels.packing import direction_of, pixel
from mambair.ops.triton_kernels.tiles import load_tile, masked_steps, raw_steps, states_of_tile, tokens_of

SIZES = ["length", "height", "width", "directions", "count", "channels", "state_size", "rank", "segments", "tiles",
         "x_b", "x_h", "x_w", "x_k", "delta_b", "delta_w", "gate_b", "gate_w", "y_b", "y_w", "y_k",
         "states_b", "states_k", "states_c", "states_n"]  # fmt: skip


@triton.jit(do_not_specialize=SIZES[:16])
def segment_ends(x, delta, packed, index, rates, weight, bias, slots, totals,
                 length, height, width, directions, count, channels, state_size, rank, segments, tiles,
                 x_b, x_h, x_w, x_k, delta_b, delta_w,
                 GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, INDEXED: tl.constexpr,
                 NARROW: tl.constexpr, FLAT: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """State at the end of every segment but the last, from zero at its start, into the slot of the segment after it.

    slots [B, K, segments, N, D] hold zeros; the sum of the steps goes to totals [B, K, segments, D].
    """
    blocks = tl.cdiv(channels, CHANNELS)
    item = tl.program_id(0)
    channel = (item % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    segment, sequence = (item // blocks) % (segments - 1), item // blocks // (segments - 1)
    k, batch = (sequence % count).to(tl.int64), (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    all_tiles, rows = tl.cdiv(length, TOKENS), rank + 2 * state_size
    at = sequence.to(tl.int64) * segments + segment
    slot = slots + (at + 1) * state_size * channels + channel
    total = tl.zeros((CHANNELS,), tl.float32)
    for tile in range(segment * tiles, (segment + 1) * tiles):
        source = packed + (sequence.to(tl.int64) * all_tiles + tile) * rows * TOKENS
        place, valid = tokens_of(tile * TOKENS, length, height, width, direction, index, batch,
                                 INDEXED, NARROW, TOKENS)  # fmt: skip
        u = load_tile(x, batch * x_b + pixel(place, width, x_h, x_w, FLAT) + k * x_k, channel, valid, exists)
        given = tl.zeros((TOKENS, CHANNELS), tl.float32)
        if GIVEN:
            given = load_tile(
                delta, batch * delta_b + place.to(tl.int64) * delta_w + k * channels, channel, valid, exists
            )
        raw = raw_steps(given, source, weight + k * rank * channels, bias + k * channels, channels, rank, channel,
                        exists, GIVEN, BIASED, TOKENS)  # fmt: skip
        steps = masked_steps(raw, valid, exists, SOFTPLUS)
        total += tl.sum(steps, axis=0)
        for n in range(state_size):
            rate = tl.load(rates + (k * state_size + n) * channels + channel, mask=exists, other=0.0)
            b = tl.load(source + (rank + n) * TOKENS + tl.arange(0, TOKENS))
            state = tl.load(slot + n * channels, mask=exists, other=0.0)
            _, state = states_of_tile(steps, steps * u, rate, b, state, TOKENS)
            tl.store(slot + n * channels, state, mask=exists)
        tl.debug_barrier()  # the next tile reads what this one wrote
    tl.store(totals + at * channels + channel, total, mask=exists)


@triton.jit(do_not_specialize=SIZES)
def outputs(x, delta, gate, packed, index, rates, weight, bias, skip, slots, y, states,
            length, height, width, directions, count, channels, state_size, rank, segments, tiles,
            x_b, x_h, x_w, x_k, delta_b, delta_w, gate_b, gate_w, y_b, y_w, y_k,
            states_b, states_k, states_c, states_n,
            GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
            SKIP: tl.constexpr, SAVE: tl.constexpr, CHUNK_TILES: tl.constexpr, INDEXED: tl.constexpr,
            NARROW: tl.constexpr, FLAT: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """y of every segment from the state in its slot, which becomes the state after its last token."""
    blocks = tl.cdiv(channels, CHANNELS)
    item = tl.program_id(0)
    channel = (item % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    segment, sequence = (item // blocks) % segments, item // blocks // segments
    k, batch = (sequence % count).to(tl.int64), (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    all_tiles, rows = tl.cdiv(length, TOKENS), rank + 2 * state_size
    slot = slots + (sequence.to(tl.int64) * segments + segment) * state_size * channels + channel
    for tile in range(segment * tiles, tl.minimum((segment + 1) * tiles, all_tiles)):
        source = packed + (sequence.to(tl.int64) * all_tiles + tile) * rows * TOKENS
        place, valid = tokens_of(tile * TOKENS, length, height, width, direction, index, batch,
                                 INDEXED, NARROW, TOKENS)  # fmt: skip
        u = load_tile(x, batch * x_b + pixel(place, width, x_h, x_w, FLAT) + k * x_k, channel, valid, exists)
        given = tl.zeros((TOKENS, CHANNELS), tl.float32)
        if GIVEN:
            given = load_tile(
                delta, batch * delta_b + place.to(tl.int64) * delta_w + k * channels, channel, valid, exists
            )
        raw = raw_steps(given, source, weight + k * rank * channels, bias + k * channels, channels, rank, channel,
                        exists, GIVEN, BIASED, TOKENS)  # fmt: skip
        chunk = tl.cast(tile // CHUNK_TILES, tl.int64)
        result = scanned_tile(u, masked_steps(raw, valid, exists, SOFTPLUS), source + rank * TOKENS,
                              rates + k * state_size * channels + channel, slot,
                              states + batch * states_b + k * states_k + chunk * states_c + channel,
                              SAVE and tile % CHUNK_TILES == 0, states_n, channels, state_size, exists,
                              SAVE, TOKENS, CHANNELS)  # fmt: skip
        if SKIP:
            result += u * tl.load(skip + k * channels + channel, mask=exists, other=0.0)[None, :]
        if GATED:
            z = load_tile(gate, batch * gate_b + place.to(tl.int64) * gate_w + k * channels, channel, valid, exists)
            result *= z * sigmoid(z)
        to = y + (batch * y_b + place.to(tl.int64) * y_w + k * y_k)[:, None] + channel[None, :]
        tl.store(to, result.to(y.dtype.element_ty), mask=valid[:, None] & exists[None, :])
        tl.debug_barrier()  # the next tile reads the states that this one wrote


@triton.jit
def scanned_tile(u, steps, matrices, rates, slot, saved, starts_chunk, saved_stride, channels, state_size, exists,
                 SAVE: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """sum(h * C) [TOKENS, CHANNELS] of a tile; its B, then C, are ``matrices``; a chunk's first states are saved."""
    result = tl.zeros((TOKENS, CHANNELS), tl.float32)
    for n in range(state_size):
        rate = tl.load(rates + n * channels, mask=exists, other=0.0)
        b = tl.load(matrices + n * TOKENS + tl.arange(0, TOKENS))
        c = tl.load(matrices + (state_size + n) * TOKENS + tl.arange(0, TOKENS))
        state = tl.load(slot + n * channels, mask=exists, other=0.0)
        if SAVE:
            tl.store(saved + n * saved_stride, state, mask=exists & starts_chunk)
        states, state = states_of_tile(steps, steps * u, rate, b, state, TOKENS)
        result += states * c[:, None]
        tl.store(slot + n * channels, state, mask=exists)
    return result
