"""What the ``forward_type`` strings of VMamba's published configurations mean, as arguments of SS2D.

A string is a base and postfixes: ``v05_noz`` is the base v05 without a gate. Bases that differ only in the kernel they
once called (v01 ... v05, v2, v3) are one here.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mambair.layers.ss2d import SS2D, OutNorm

ROWS_AND_COLUMNS = (0, 1, 2, 3)
DIRECTIONS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("v0", "v0seq", "v01", "v02", "v03", "v04", "v05", "v2", "v3"), ROWS_AND_COLUMNS),
    "v051d": (0, 0, 0, 0),
    "v052d": (0, 0, 2, 2),
    "v052dc": ROWS_AND_COLUMNS,
}
OUT_NORMS: dict[str, OutNorm] = {
    "onnone": "none",
    "ondwconv3": "dwconv3",
    "oncnorm": "layer_dwconv3",
    "onsoftmax": "softmax",
    "onsigmoid": "sigmoid",
}
POSTFIXES = ("no32", "oact", "noz", "nozact", *OUT_NORMS)  # no32: the scan is float32 here, as it was without it
REFUSED = {
    "m0": "it is the scan of Mamba-2, of which no trained weights were published",
    "m2": "it is the scan of Mamba-2, of which no trained weights were published",
    "xv1a": "it is an experiment that its authors found unstable",
    "xv2a": "it is an experiment that its authors found unstable",
    "xv3a": "it is an experiment that its authors found unstable",
    "v052d3": "it is a setting for debugging",
}


class CascadedSS2D(SS2D):
    """SS2D in two steps: along every row in both directions, then along every column of the result (``v052dc``).

    As published, the output of a backward scan is added in the order in which it was read: it is not turned back.
    """

    def can_fuse(self) -> bool:
        """Not: the fused path scans all four directions of one image."""
        return False

    def _scan(self, x: Tensor) -> Tensor:
        """[B, H, W, D] -> [B, H, W, D]; parameter sets 0 and 1 are for the rows, 2 and 3 for the columns."""
        x = self._scan_lines(F.layer_norm(x, (self.d_inner,)), 0)
        columns = F.layer_norm(x, (self.d_inner,)).transpose(1, 2)
        return self._scan_lines(columns, 2).transpose(1, 2).contiguous()

    def _scan_lines(self, x: Tensor, first_set: int) -> Tensor:
        lines = x.flatten(0, 1).unsqueeze(1)  # [B * H, 1, W, D]: an image of one row, so that each scan starts afresh
        forward = self._scan_along(lines, range(first_set, first_set + 1), (0,))
        backward = self._scan_along(lines, range(first_set + 1, first_set + 2), (2,))
        return (forward + backward.flip(2)).view(x.shape)


def make_scan_layer(forward_type: str, d_model: int, *, activation: str, **arguments: Any) -> SS2D:
    """The SS2D of ``d_model`` channels that ``forward_type`` means; ``arguments`` are SS2D's other ones.

    Raises:
        ValueError: the string is not known, or its network is not supported; the message says why.
    """
    base, *postfixes = forward_type.split("_")
    if base in REFUSED:
        raise ValueError(f"forward_type {forward_type!r} is not supported: {REFUSED[base]}; use 'v05_noz'")
    unknown = [part for part in postfixes if part not in POSTFIXES]
    if base not in DIRECTIONS or unknown:
        raise ValueError(
            f"forward_type {forward_type!r} is not known: it is one of {', '.join(DIRECTIONS)}, followed by any of "
            f"{', '.join('_' + part for part in POSTFIXES)}"
        )
    norms = [OUT_NORMS[part] for part in postfixes if part in OUT_NORMS]
    if len(norms) > 1:
        raise ValueError(f"forward_type {forward_type!r} names {len(norms)} output normalisations, one is possible")
    layer = CascadedSS2D if base == "v052dc" else SS2D
    return layer(
        d_model,
        activation=activation,
        gate=_gate(base, postfixes, activation),
        out_norm=norms[0] if norms else "layer",
        out_act="gelu" if "oact" in postfixes else "identity",
        directions=DIRECTIONS[base],
        **arguments,
    )


def _gate(base: str, postfixes: list[str], activation: str) -> str | None:
    if "noz" in postfixes:
        return None
    if "nozact" in postfixes:
        return "identity"
    return "silu" if base in ("v0", "v0seq") else activation
