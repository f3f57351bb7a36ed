"""SS2D: the 2-D selective scan layer of VMamba (Liu et al., 2024) as MambaIR has it (Guo et al., ECCV 2024)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.ssm_init import input_projection, skip_weights, state_decay_logs, step_projection
from mambair.layers.tokens import as_image, as_tokens
from mambair.ops import ss2d_scan

DIRECTIONS = 4  # rows, columns, reversed rows, reversed columns: the order of the parameters


class SS2D(nn.Module):
    """Gated 2-D state-space layer: every pixel sees the whole image along rows and columns, forward and backward.

    Args:
        d_model: channels C.
        d_state: state size N.
        d_conv: side of the depthwise convolution, odd.
        expand: inner channels D = int(expand * C).
        dt_rank: R; "auto" is ceil(C / 16).
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: initial step sizes, see ``ssm_init.step_projection``.
        dropout: dropout rate of the output.
        conv_bias, bias: whether the convolution, the two linear layers, have a bias.

    Raises:
        ValueError: a size is not positive, or ``d_conv`` is even.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 3,
        expand: float = 2.0,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        dropout: float = 0.0,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        if d_model < 1 or d_state < 1 or inner < 1:
            raise ValueError(
                f"d_model, d_state and int(expand * d_model) must be at least 1, got {d_model}, {d_state}, {inner}"
            )
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv must be odd to keep the image size, got {d_conv}")
        self.d_model, self.d_state, self.d_inner = d_model, d_state, inner
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner, bias=conv_bias)
        self.x_proj_weight = input_projection(inner, self.dt_rank + 2 * d_state, DIRECTIONS)  # [K, R + 2N, D]
        self.dt_projs_weight, self.dt_projs_bias = step_projection(
            inner,
            self.dt_rank,
            DIRECTIONS,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_scale=dt_scale,
            dt_init=dt_init,
            dt_init_floor=dt_init_floor,
        )
        self.A_logs = state_decay_logs(inner, d_state, DIRECTIONS)  # [K * D, N]
        self.Ds = skip_weights(inner, DIRECTIONS)  # [K * D]
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C], any H, W >= 1. Differentiable in x and all parameters.

        Under autocast the linear layers run in the lower precision; the scan keeps its state in float32.
        """
        x, gate = self._split(x)
        x = F.silu(as_tokens(self.conv2d(as_image(x))))
        y = self.out_norm(self._scan(x)) * F.silu(gate)
        return self.dropout(self.out_proj(y))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two products with halves of one weight: each result is contiguous, one product's halves would not be."""
        weights = self.in_proj.weight.chunk(2)
        biases = self.in_proj.bias.chunk(2) if self.in_proj.bias is not None else (None, None)
        return F.linear(x, weights[0], biases[0]), F.linear(x, weights[1], biases[1])

    def _scan(self, x: Tensor) -> Tensor:
        """[B, H, W, D] -> [B, H, W, D]. The projections of all directions are one product on x in raster order."""
        inner, state = self.d_inner, self.d_state
        projection = F.linear(x, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (DIRECTIONS, -1))  # [B, H, W, K, R+2N]
        decay = -torch.exp(self.A_logs.float()).view(DIRECTIONS, inner, state)
        skip = self.Ds.float().view(DIRECTIONS, inner)
        return ss2d_scan(x, projection, self.dt_projs_weight, self.dt_projs_bias, decay, skip)
