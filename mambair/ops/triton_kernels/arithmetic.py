"""Numbers of the kernels: exponentials and softplus to float32 accuracy, and rows of tiles held in registers."""

# The body of a kernel is Triton's language, not Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LN2_HIGH = tl.constexpr(0.693145751953125)  # few bits: its product with a small whole number is exact
LN2_LOW = tl.constexpr(1.4286068203094173e-06)


@triton.jit
def decay_of(x):
    """2^x in two parts: the factor is ``w`` where ``near`` is 0 and ``1 + w`` where it is 1.

    A factor near 1, rounded, would be wrong in the leading digits of its time constant; there w is 2^x - 1.
    """
    close = tl.abs(x) < 0.125
    w = x * (0.6931471398600627 + x * (0.24022649520493375 + x * (0.055524945840838114 + x * 0.009621138033178916)))
    return tl.where(close, w, tl.exp2(x)), tl.where(close, 1.0, 0.0)


@triton.jit
def exp_of_minus(size):
    """exp(-size) for size >= 0, with the argument reduced before it is rounded."""
    size = tl.where(size > 100.0, 100.0, size)  # written so that a NaN stays
    whole = tl.floor(0.5 - size * LOG2E)
    rest = (-size - whole * LN2_HIGH) - whole * LN2_LOW
    return tl.exp2(rest * LOG2E) * tl.exp2(whole)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) as max(x, 0) + 2 atanh(e / (2 + e)), which keeps the digits of small results."""
    e = exp_of_minus(tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    series = 2.0 + q * (0.6666667925329575 + q * (0.3999869481205284 + q * (0.28620623401926765 + q * (
        0.2139426743338496 + q * 0.2440940337696742))))  # fmt: skip
    return tl.where(x > 0.0, x, 0.0) + s * series


@triton.jit
def sigmoid(x):
    e = exp_of_minus(tl.abs(x))
    return tl.where(x > 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def rows(a, b, c, j: tl.constexpr, TOKENS: tl.constexpr):
    """Row j of three float32 tiles [TOKENS, channels]. Every thread holds all rows, so that this costs nothing.

    The sums are of whole numbers, for the compiler drops additions of 0 only there.
    """
    here = tl.arange(0, TOKENS)[:, None] == j
    a = tl.sum(tl.where(here, a.to(tl.int32, bitcast=True), 0), axis=0).to(tl.float32, bitcast=True)
    b = tl.sum(tl.where(here, b.to(tl.int32, bitcast=True), 0), axis=0).to(tl.float32, bitcast=True)
    c = tl.sum(tl.where(here, c.to(tl.int32, bitcast=True), 0), axis=0).to(tl.float32, bitcast=True)
    return a, b, c
