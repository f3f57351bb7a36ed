"""The gradient of the scan, from the last token to the first.

``adjoint`` is the gradient with respect to the state after a token; times the token's decay it is what the token before
receives, and that is what the slots [B, K, segments, N, D] hold: slot s for the state at the end of segment s.
"""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from mambair.ops.triton_kernels.arithmetic import LN2, decay_of, rows, sigmoid
from mambair.ops.triton_kernels.packing import direction_of, pixel
from mambair.ops.triton_kernels.tiles import load_tile, masked_steps, raw_steps, states_of_tile, tokens_of

SIZES = ["length", "height", "width", "directions", "count", "channels", "state_size", "rank", "segments", "tiles",
         "x_b", "x_h", "x_w", "x_k", "g_b", "g_h", "g_w", "g_k", "delta_b", "delta_w", "gate_b", "gate_w",
         "dx_b", "dx_w", "dx_k", "states_b", "states_k", "states_c", "states_n", "groups"]  # fmt: skip


@triton.jit
def adjoints_of_tile(w, near, received, later, TOKENS: tl.constexpr):
    """Adjoints [TOKENS, CHANNELS] and what the token before the tile receives; ``later``: what the last one receives.

    w, near: the decays of the tile as from decay_of; received: what each token gets from its own output.
    """
    adjoints, token = received, tl.arange(0, TOKENS)[:, None]
    for j in tl.static_range(TOKENS - 1, -1, -1):
        w_j, near_j, received_j = rows(w, near, received, j, TOKENS)
        adjoint = received_j + later
        adjoints = tl.where(token == j, adjoint[None, :], adjoints)
        later = w_j * adjoint + tl.where(near_j > 0.5, adjoint, 0.0)
    return adjoints, later


@triton.jit
def gated_gradient(grad, gate, pixels_g, pixels_gate, channel, valid, exists, GATED: tl.constexpr):
    """Gradient of the scan's own output, and the gate (or 0)."""
    g = load_tile(grad, pixels_g, channel, valid, exists)
    z = g
    if GATED:
        z = load_tile(gate, pixels_gate, channel, valid, exists)
        g = g * (z * sigmoid(z))
    return g, z


@triton.jit(do_not_specialize=[*SIZES[:10], *SIZES[14:22]])
def segment_starts(grad, delta, gate, packed, index, rates, weight, bias, slots, totals,
                   length, height, width, directions, count, channels, state_size, rank, segments, tiles,
                   g_b, g_h, g_w, g_k, delta_b, delta_w, gate_b, gate_w,
                   GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
                   INDEXED: tl.constexpr, NARROW: tl.constexpr, FLAT: tl.constexpr, TOKENS: tl.constexpr,
                   CHANNELS: tl.constexpr):  # fmt: skip
    """What the segment before receives from every segment but the first, if that gets nothing from the one after it."""
    blocks = tl.cdiv(channels, CHANNELS)
    item = tl.program_id(0)
    channel = (item % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    segment, sequence = (item // blocks) % (segments - 1) + 1, item // blocks // (segments - 1)
    k, batch = (sequence % count).to(tl.int64), (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    all_tiles, rows = tl.cdiv(length, TOKENS), rank + 2 * state_size
    at = sequence.to(tl.int64) * segments + segment
    slot = slots + (at - 1) * state_size * channels + channel
    total = tl.zeros((CHANNELS,), tl.float32)
    last = tl.minimum((segment + 1) * tiles, all_tiles) - 1
    for i in range(last - segment * tiles + 1):
        tile = last - i
        source = packed + (sequence.to(tl.int64) * all_tiles + tile) * rows * TOKENS
        place, valid = tokens_of(tile * TOKENS, length, height, width, direction, index, batch,
                                 INDEXED, NARROW, TOKENS)  # fmt: skip
        pixels_z = batch * gate_b + place.to(tl.int64) * gate_w + k * channels
        pixels_g = batch * g_b + pixel(place, width, g_h, g_w, FLAT) + k * g_k
        g, _ = gated_gradient(grad, gate, pixels_g, pixels_z, channel, valid, exists, GATED)
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
            c = tl.load(source + (rank + state_size + n) * TOKENS + tl.arange(0, TOKENS))
            later = tl.load(slot + n * channels, mask=exists, other=0.0)
            w, near = decay_of(steps * rate[None, :])
            _, later = adjoints_of_tile(w, near, g * c[:, None], later, TOKENS)
            tl.store(slot + n * channels, later, mask=exists)
        tl.debug_barrier()  # the next tile reads what this one wrote
    tl.store(totals + at * channels + channel, total, mask=exists)


@triton.jit
def add_to(pointer, numbers, here, adds):
    """Add to numbers in memory that this program alone writes; where ``adds`` is false nothing is there yet."""
    tl.store(pointer, tl.load(pointer, mask=adds, other=0.0) + numbers, mask=here)


@triton.jit
def run_tile(u, steps, matrices, rates, before, channels, state_size, exists,
             TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """From the states before a tile to those after it, the next [N, CHANNELS] of the scratch ``before``."""
    lane = tl.arange(0, CHANNELS)
    for n in range(state_size):
        rate = tl.load(rates + n * channels, mask=exists, other=0.0)
        b = tl.load(matrices + n * TOKENS + tl.arange(0, TOKENS))
        state = tl.load(before + n * CHANNELS + lane)
        _, state = states_of_tile(steps, steps * u, rate, b, state, TOKENS)
        tl.store(before + (state_size + n) * CHANNELS + lane, state)


@triton.jit
def tile_gradients(u, steps, g, matrices, matrix_grads, rates, rate_grads, slot, before, channels, state_size, exists,
                   adds, GATED: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Gradients of one tile: of step * u, of the steps through the decays, and the scan's output where there is a gate.

    Those of B, C and A are added to (written if ``adds`` is 0) ``matrix_grads`` and ``rate_grads``.
    """
    lane, token = tl.arange(0, CHANNELS), tl.arange(0, TOKENS)
    drive = steps * u
    grad_drive = tl.zeros((TOKENS, CHANNELS), tl.float32)
    grad_steps, result = grad_drive, grad_drive
    for n in range(state_size):
        rate = tl.load(rates + n * channels, mask=exists, other=0.0)
        b = tl.load(matrices + n * TOKENS + token)
        c = tl.load(matrices + (state_size + n) * TOKENS + token)
        state = tl.load(before + n * CHANNELS + lane)
        later = tl.load(slot + n * channels, mask=exists, other=0.0)
        w, near = decay_of(steps * rate[None, :])
        entering = drive * b[:, None]
        remaining, states = entering, entering
        for j in tl.static_range(TOKENS):
            w_j, near_j, entering_j = rows(w, near, entering, j, TOKENS)
            left = w_j * state + tl.where(near_j > 0.5, state, 0.0)
            state = left + entering_j
            remaining = tl.where(token[:, None] == j, left[None, :], remaining)
            states = tl.where(token[:, None] == j, state[None, :], states)
        adjoints, later = adjoints_of_tile(w, near, g * c[:, None], later, TOKENS)
        tl.store(slot + n * channels, later, mask=exists)
        to_b, to_c = matrix_grads + n * TOKENS + token, matrix_grads + (state_size + n) * TOKENS + token
        add_to(to_b, tl.sum(adjoints * drive, axis=1), token >= 0, token < adds * TOKENS)
        add_to(to_c, tl.sum(states * g, axis=1), token >= 0, token < adds * TOKENS)
        flow = adjoints * remaining
        grad_drive += adjoints * b[:, None]
        grad_steps += flow * rate[None, :]
        add_to(rate_grads + n * channels, tl.sum(flow * steps, axis=0), exists, exists)
        if GATED:
            result += states * c[:, None]
    return grad_drive, grad_steps * LN2, result


@triton.jit
def step_gradients(raw_grads, packed, packed_grads, weight, weight_grads, channels, rank, channel, exists, adds,
                   GIVEN: tl.constexpr, BIASED: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """From the gradient of the raw steps [TOKENS, CHANNELS] to those of weights, bias and projected rows."""
    token = tl.arange(0, TOKENS)
    if not GIVEN:
        for r in range(rank):
            numbers = tl.load(packed + r * TOKENS + token)
            factors = tl.load(weight + r * channels + channel, mask=exists, other=0.0)
            summed = tl.sum(raw_grads * factors[None, :], axis=1)
            add_to(packed_grads + r * TOKENS + token, summed, token >= 0, token < adds * TOKENS)
            add_to(weight_grads + r * channels, tl.sum(raw_grads * numbers[:, None], axis=0), exists, exists)
    if BIASED:
        add_to(weight_grads + rank * channels, tl.sum(raw_grads, axis=0), exists, exists)


@triton.jit(do_not_specialize=SIZES)
def gradients(grad, x, delta, gate, packed, index, rates, weight, bias, skip, states, slots, scratch,
              dx, ddelta, dgate, dpacked, dparameters,
              length, height, width, directions, count, channels, state_size, rank, segments, tiles,
              x_b, x_h, x_w, x_k, g_b, g_h, g_w, g_k, delta_b, delta_w, gate_b, gate_w,
              dx_b, dx_w, dx_k, states_b, states_k, states_c, states_n, groups,
              items,
              GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
              SKIP: tl.constexpr, CHUNK_TILES: tl.constexpr, INDEXED: tl.constexpr, NARROW: tl.constexpr,
              FLAT: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """All gradients, one (sequence, segment, group of channel blocks) after the other.

    dx and, where given, ddelta and dgate are written at the places of the tokens (offsets dx_b, dx_w, dx_k);
    dpacked [groups, B, K, all tiles, rank + 2 N, TOKENS]; dparameters [B, K, segments, N + rank + 2, D] holds zeros
    and gets the gradients of rates (times ln 2 less), weight, bias and skip.
    """
    blocks, all_tiles, rows = tl.cdiv(channels, CHANNELS), tl.cdiv(length, TOKENS), rank + 2 * state_size
    before = scratch + tl.program_id(0).to(tl.int64) * CHUNK_TILES * state_size * CHANNELS
    chunks = tiles // CHUNK_TILES
    per_group = tl.cdiv(blocks, groups)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        group, segment = item % groups, (item // groups) % segments
        sequence = item // groups // segments
        last_chunk = tl.minimum((segment + 1) * chunks, tl.cdiv(all_tiles, CHUNK_TILES)) - 1
        for block in range(group * per_group, tl.minimum((group + 1) * per_group, blocks)):
            for i in range(last_chunk - segment * chunks + 1):
                chunk_gradients(
                    grad, x, delta, gate, packed, index, rates, weight, bias, skip, states, slots, before,
                    dx, ddelta, dgate, dpacked, dparameters,
                    length, height, width, directions, count, channels, state_size, rank, segments, all_tiles, rows,
                    x_b, x_h, x_w, x_k, g_b, g_h, g_w, g_k, delta_b, delta_w, gate_b, gate_w,
                    dx_b, dx_w, dx_k, states_b, states_k, states_c, states_n,
                    sequence, items // groups // segments, segment, group, block, last_chunk - i,
                    block - group * per_group,
                    GIVEN, BIASED, SOFTPLUS, GATED, SKIP, CHUNK_TILES, INDEXED, NARROW, FLAT, TOKENS, CHANNELS,
                )  # fmt: skip


@triton.jit
def chunk_gradients(grad, x, delta, gate, packed, index, rates, weight, bias, skip, states, slots, before,
                    dx, ddelta, dgate, dpacked, dparameters,
                    length, height, width, directions, count, channels, state_size, rank, segments, all_tiles, rows,
                    x_b, x_h, x_w, x_k, g_b, g_h, g_w, g_k, delta_b, delta_w, gate_b, gate_w,
                    dx_b, dx_w, dx_k, states_b, states_k, states_c, states_n,
                    sequence, sequences, segment, group, block, chunk, adds,
                    GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
                    SKIP: tl.constexpr, CHUNK_TILES: tl.constexpr, INDEXED: tl.constexpr, NARROW: tl.constexpr,
                    FLAT: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Forward through the tiles of a chunk to learn the states before each, then backward through their gradients."""
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    exists, lane = channel < channels, tl.arange(0, CHANNELS)
    k, batch = (sequence % count).to(tl.int64), (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    at = sequence.to(tl.int64) * segments + segment
    slot = slots + at * state_size * channels + channel
    parameters = dparameters + at * (state_size + rank + 2) * channels + channel
    rates += k * state_size * channels + channel
    weight, bias = weight + k * rank * channels, bias + k * channels
    saved = states + batch * states_b + k * states_k + chunk.to(tl.int64) * states_c + channel
    for n in range(state_size):
        tl.store(before + n * CHANNELS + lane, tl.load(saved + n * states_n, mask=exists, other=0.0))
    tl.debug_barrier()
    count_here = tl.minimum(CHUNK_TILES, all_tiles - chunk * CHUNK_TILES)
    for i in range(2 * count_here - 1):
        t = tl.where(i < count_here, i, 2 * count_here - 2 - i)  # 0 1 2 3 2 1 0; the last tile is only gone backward
        tile = chunk * CHUNK_TILES + t
        source = packed + (sequence.to(tl.int64) * all_tiles + tile) * rows * TOKENS
        place, valid = tokens_of(tile * TOKENS, length, height, width, direction, index, batch,
                                 INDEXED, NARROW, TOKENS)  # fmt: skip
        u = load_tile(x, batch * x_b + pixel(place, width, x_h, x_w, FLAT) + k * x_k, channel, valid, exists)
        given = tl.zeros((TOKENS, CHANNELS), tl.float32)
        if GIVEN:
            given = load_tile(
                delta, batch * delta_b + place.to(tl.int64) * delta_w + k * channels, channel, valid, exists
            )
        raw = raw_steps(given, source, weight, bias, channels, rank, channel, exists, GIVEN, BIASED, TOKENS)
        steps = masked_steps(raw, valid, exists, SOFTPLUS)
        here = before + t * state_size * CHANNELS
        if i < count_here - 1:
            run_tile(u, steps, source + rank * TOKENS, rates, here, channels, state_size, exists, TOKENS, CHANNELS)
        else:
            pixels_z = batch * gate_b + place.to(tl.int64) * gate_w + k * channels
            pixels_g = batch * g_b + pixel(place, width, g_h, g_w, FLAT) + k * g_k
            g, z = gated_gradient(grad, gate, pixels_g, pixels_z, channel, valid, exists, GATED)
            row_grads = dpacked + ((group.to(tl.int64) * sequences + sequence) * all_tiles + tile) * rows * TOKENS
            grad_drive, grad_steps, result = tile_gradients(
                u, steps, g, source + rank * TOKENS, row_grads + rank * TOKENS, rates, parameters, slot, here,
                channels, state_size, exists, adds, GATED, TOKENS, CHANNELS,
            )  # fmt: skip
            to = batch * dx_b + place.to(tl.int64) * dx_w + k * dx_k
            finish_tile(u, raw, steps, g, z, grad_drive, grad_steps, result, source, row_grads, weight,
                        parameters + state_size * channels, skip + k * channels, grad, pixels_g, dx, ddelta, dgate,
                        to, channels, rank, channel, valid, exists, adds,
                        GIVEN, BIASED, SOFTPLUS, GATED, SKIP, TOKENS)  # fmt: skip
        tl.debug_barrier()  # the next tile reads what this one wrote


@triton.jit
def finish_tile(u, raw, steps, g, z, grad_drive, grad_steps, result, source, row_grads, weight, weight_grads, skip,
                grad, pixels_g, dx, ddelta, dgate, to, channels, rank, channel, valid, exists, adds,
                GIVEN: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
                SKIP: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """What remains of a tile's gradients when those through the state are known."""
    here = valid[:, None] & exists[None, :]
    to = to[:, None] + channel[None, :]
    raw_grads = grad_drive * u + grad_steps
    if SOFTPLUS:
        raw_grads *= sigmoid(raw)
    raw_grads = tl.where(here, raw_grads, 0.0)
    du = grad_drive * steps
    if SKIP:
        factor = tl.load(skip + channel, mask=exists, other=0.0)[None, :]
        du += g * factor
        result += u * factor
        skip_grads = weight_grads + (rank + 1) * channels
        add_to(skip_grads, tl.sum(g * u, axis=0), exists, exists)
    tl.store(dx + to, du.to(dx.dtype.element_ty), mask=here)
    if GIVEN:
        tl.store(ddelta + to, raw_grads.to(ddelta.dtype.element_ty), mask=here)
    if GATED:
        gate = sigmoid(z)
        slope = gate * (1.0 + z * (1.0 - gate))
        dz = load_tile(grad, pixels_g, channel, valid, exists) * result * slope
        tl.store(dgate + to, dz.to(dgate.dtype.element_ty), mask=here)
    step_gradients(raw_grads, source, row_grads, weight, weight_grads, channels, rank, channel, exists, adds,
                   GIVEN, BIASED, TOKENS)  # fmt: skip
