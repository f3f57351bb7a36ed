"""The two-dimensional selective scan (SS2D): pixels read in several orders, the outputs added. Contract and checks.

Source: Guo et al., "MambaIR", 2024, section 3.3, after Liu et al., "VMamba", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mambair.ops import backends
from mambair.ops.checks import check_dimensions, check_tensors


def ss2d_scan(
    x: Tensor,
    projection: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    directions: Sequence[int] = (0, 1, 2, 3),
) -> Tensor:
    """Scan an image along K directions and add the results, pixel by pixel.

    Direction k runs :func:`mambair.ops.selective_scan` over the H * W pixels in its order, with
    ``dt, B, C = projection[..., k, :]`` split into R, N and N numbers and
    ``delta = softplus(dt @ dt_weight[k].T + dt_bias[k])``.

    Args:
        x: Input [B, H, W, D]. Any strides; a last stride of 1 is read without a copy.
        projection: What the pixel contributes to its own step size and matrices [B, H, W, K, R + 2 N].
        dt_weight: Step-size projection [K, D, R].
        dt_bias: [K, D].
        A: Decay rates [K, D, N], real; ``-exp(A_log)`` in the published networks.
        D: Skip weights [K, D].
        directions: Order of the pixels for each of the K parameter sets; repeats are allowed. 0: along the rows from
            the top left; 1: along the columns from the top left; 2: 0 backwards; 3: 1 backwards.

    Returns:
        y [B, H, W, D] in the dtype of ``x``, contiguous. Inputs may be float32, bfloat16 or float16 and need not agree;
        all arithmetic and the sum over directions are float32, also under autocast; a float64 input makes it float64.
        Gradients exist for all six tensors and have their dtypes.

    Raises:
        ValueError: A shape, dtype, device or direction does not fit; the message names the argument, rule and finding.
        RequestError: ``MAMBAIR_SCAN_BACKEND`` names a backend that does not exist or cannot run this.
    """
    directions = [int(d) for d in directions]
    _check(x, projection, dt_weight, dt_bias, A, D, directions)
    tensors = (x, projection, dt_weight, dt_bias, A, D)

    def run(backend: backends.Backend) -> Tensor:
        return backend.ss2d_scan(*tensors, directions)

    return run(backends.choose(tensors, states=A.shape[2], run=run, extra=tuple(directions)))


def _check(
    x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, directions: list[int]
) -> None:
    check_dimensions("x", x, "[B, H, W, D]")
    check_dimensions("dt_weight", dt_weight, "[K, D, R]")
    check_dimensions("A", A, "[K, D, N]")
    if not directions or any(d not in (0, 1, 2, 3) for d in directions):
        raise ValueError(
            "directions must name at least one of 0 (rows), 1 (columns), 2 (rows backwards), 3 (columns backwards); "
            f"found {directions}"
        )
    batch, height, width, channels = x.shape
    count, rank, states = len(directions), dt_weight.shape[2], A.shape[2]
    wanted = {
        "projection": (projection, (batch, height, width, count, rank + 2 * states), "[B, H, W, K, R + 2 N]"),
        "dt_weight": (dt_weight, (count, channels, rank), "[K, D, R]"),
        "dt_bias": (dt_bias, (count, channels), "[K, D]"),
        "A": (A, (count, channels, states), "[K, D, N]"),
        "D": (D, (count, channels), "[K, D]"),
    }
    check_tensors("x", x, wanted)
