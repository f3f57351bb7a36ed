"""Where the tokens of a scan are, and moving the small projections between pixels and the order of the scan.

A packed tensor is [..., tiles, rows, 16]: a row of a tile holds a number for each of its 16 tokens, 0 behind the last.
"""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def direction_of(directions, k):
    """Two bits of a 64-bit number; groups of a sequence, of which there may be more, all have direction 0."""
    return ((tl.cast(directions, tl.int64) >> ((2 * k) & 63)) & 3).to(tl.int32)


@triton.jit
def places(first, length, height, width, direction, NARROW: tl.constexpr, TOKENS: tl.constexpr):
    """Row-major numbers [TOKENS] of the pixels of the tokens from ``first`` on; anything behind the last token.

    direction: 0 rows, 1 columns, 2 and 3 the same backwards. A sequence is an image of one row.
    """
    columns = direction % 2 == 1
    backwards = direction // 2
    line = tl.where(columns, height, width)  # tokens until the next line, which is ``ahead`` pixels on
    unit, ahead = tl.where(columns, width, 1), tl.where(columns, 1, width)
    start = tl.where(backwards == 1, length - 1 - first, first)
    offset = tl.arange(0, TOKENS) * (1 - 2 * backwards)
    if NARROW:  # a tile may span several lines
        place = tl.maximum(start + offset, 0)
        major = place // line
        result = (place - major * line) * unit + major * ahead
    else:  # at most two, and one division for all
        major = start // line
        minor = start - major * line
        over = tl.where(minor + offset >= line, 1, 0) - tl.where(minor + offset < 0, 1, 0)
        result = minor * unit + major * ahead + offset * unit + over * (ahead - line * unit)
    return result


@triton.jit
def indexed(place, valid, index, batch, length, INDEXED: tl.constexpr):
    """The places themselves, or the numbers which ``index`` [B, L] has there."""
    result = place
    if INDEXED:
        result = tl.load(index + batch * length + place, mask=valid, other=0).to(tl.int32)
    return result


@triton.jit
def pixel(place, width, stride_h, stride_w, FLAT: tl.constexpr):
    """Offsets of pixels in 64 bits; FLAT: a row begins ``width`` pixels after the one before, or is the only one."""
    if FLAT:
        result = place.to(tl.int64) * stride_w
    else:
        y = place // width
        result = y.to(tl.int64) * stride_h + (place - y * width).to(tl.int64) * stride_w
    return result


@triton.jit(do_not_specialize=["length", "height", "width", "directions", "count", "rows", "first_row", "all_rows",
                               "stride_b", "stride_h", "stride_w", "stride_k"])  # fmt: skip
def pack(source, packed, index, length, height, width, directions, count, rows, first_row, all_rows,
         stride_b, stride_h, stride_w, stride_k,
         INDEXED: tl.constexpr, NARROW: tl.constexpr, FLAT: tl.constexpr, TOKENS: tl.constexpr,
         BLOCK: tl.constexpr):  # fmt: skip
    """source [B, H, W, K, rows] -> rows ``first_row`` ... of packed [B, K, tiles, all_rows, TOKENS]."""
    tiles = tl.cdiv(length, TOKENS)
    item = tl.program_id(0)
    tile, sequence = item % tiles, item // tiles
    k, batch = sequence % count, (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    valid = tile * TOKENS + tl.arange(0, TOKENS) < length
    place = places(tile * TOKENS, length, height, width, direction, NARROW, TOKENS)
    place = indexed(place, valid, index, batch, length, INDEXED)
    at = batch * stride_b + pixel(place, width, stride_h, stride_w, FLAT) + k.to(tl.int64) * stride_k
    target = packed + (item.to(tl.int64) * all_rows + first_row) * TOKENS
    for begin in range(0, rows, BLOCK):
        r = begin + tl.arange(0, BLOCK)
        here = valid[:, None] & (r < rows)[None, :]
        values = tl.load(source + at[:, None] + r[None, :], mask=here, other=0.0).to(tl.float32)
        to = target + r[None, :] * TOKENS + tl.arange(0, TOKENS)[:, None]
        tl.store(to, values, mask=(r < rows)[None, :] & (tl.arange(0, TOKENS) >= 0)[:, None])


@triton.jit(do_not_specialize=["length", "height", "width", "directions", "count", "rows", "first_row", "all_rows",
                               "parts", "stride_b", "stride_h", "stride_w", "stride_k"])  # fmt: skip
def unpack(packed, target, index, length, height, width, directions, count, rows, first_row, all_rows, parts,
           stride_b, stride_h, stride_w, stride_k,
           INDEXED: tl.constexpr, NARROW: tl.constexpr, FLAT: tl.constexpr, TOKENS: tl.constexpr,
         BLOCK: tl.constexpr):  # fmt: skip
    """The sum of packed [parts, B, K, tiles, all_rows, TOKENS] over its parts -> target [B, H, W, K, rows]."""
    tiles = tl.cdiv(length, TOKENS)
    item = tl.program_id(0)
    tile, sequence = item % tiles, item // tiles
    k, batch = sequence % count, (sequence // count).to(tl.int64)
    direction = direction_of(directions, k)
    valid = tile * TOKENS + tl.arange(0, TOKENS) < length
    place = places(tile * TOKENS, length, height, width, direction, NARROW, TOKENS)
    place = indexed(place, valid, index, batch, length, INDEXED)
    at = batch * stride_b + pixel(place, width, stride_h, stride_w, FLAT) + k.to(tl.int64) * stride_k
    part_size = tl.num_programs(0).to(tl.int64) * all_rows * TOKENS
    source = packed + (item.to(tl.int64) * all_rows + first_row) * TOKENS
    for begin in range(0, rows, BLOCK):
        r = begin + tl.arange(0, BLOCK)
        here = valid[:, None] & (r < rows)[None, :]
        total = tl.zeros((TOKENS, BLOCK), tl.float32)
        for part in range(parts):
            numbers = source + part * part_size + r[None, :] * TOKENS + tl.arange(0, TOKENS)[:, None]
            total += tl.load(numbers, mask=here, other=0.0)
        tl.store(target + at[:, None] + r[None, :], total.to(target.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["size", "count"])
def add_directions(parts, total, size, count, BLOCK: tl.constexpr):
    """parts [B, count, size] float32 -> total [B, size], summed in order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    result = tl.zeros((BLOCK,), tl.float32)
    for k in range(count):
        result += tl.load(parts + (batch * count + k) * size + at, mask=at < size, other=0.0)
    tl.store(total + batch * size + at, result.to(total.dtype.element_ty), mask=at < size)
