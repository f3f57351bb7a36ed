"""The mixer and block of Vision Mamba (Zhu et al., "Vision Mamba", ICML 2024, figure 2 and algorithm 1).

Letters: B batch, L tokens, C channels, D inner channels, N state size, R rank of the step-size projection.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.decay import DecayingScan
from mambair.layers.drop_path import DropPath
from mambair.layers.ssm_init import skip_weights, state_decay_logs, step_projection
from mambair.ops import ss2d_scan

BimambaType = Literal["none", "v1", "v2"]
FORWARD, BACKWARD = 0, 2  # directions of a scan along an image of one row


class BidirectionalMamba(DecayingScan):
    """Gated selective scans of a sequence in one or both directions. Attribute names are the published ones.

    Args:
        d_model: channels C.
        d_state: state size N.
        d_conv: length of the depthwise convolution along the sequence.
        expand: inner channels D = int(expand * C).
        dt_rank: R; "auto" is ceil(C / 16).
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: initial step sizes, see ``ssm_init.step_projection``.
        conv_bias, bias: whether the convolutions, the input and output layers, have a bias.
        bimamba_type: "none": forward only. "v1": the backward scan has its own decay and shares the rest. "v2": it has
            its own convolution, projections, decay and skip weights, and its convolution looks backward, too.
        if_divide_out: halve the sum of both directions ("v2" only; "v1" is never halved, as published).
        init_layer_scale: initial value of a factor ``gamma`` per output channel; None for no such factor.

    Raises:
        ValueError: a size below 1, or another ``bimamba_type``.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        bimamba_type: BimambaType = "v2",
        if_divide_out: bool = True,
        init_layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        if min(d_model, d_state, d_conv, inner) < 1:
            raise ValueError(
                f"d_model, d_state, d_conv and int(expand * d_model) must be at least 1, got {d_model}, {d_state}, "
                f"{d_conv}, {inner}"
            )
        if bimamba_type not in ("none", "v1", "v2"):
            raise ValueError(f'bimamba_type must be "none", "v1" or "v2", got {bimamba_type!r}')
        self.d_model, self.d_state, self.d_inner = d_model, d_state, inner
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.bimamba_type, self.if_divide_out = bimamba_type, if_divide_out
        self.A_log, self.D = state_decay_logs(inner, d_state, 1), skip_weights(inner, 1)  # [D, N], [D]
        if bimamba_type != "none":
            self.A_b_log = state_decay_logs(inner, d_state, 1)
        if bimamba_type == "v2":
            self.D_b = skip_weights(inner, 1)
        self.gamma = None if init_layer_scale is None else nn.Parameter(init_layer_scale * torch.ones(d_model))
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv1d, self.x_proj, self.dt_proj = self._scan_layers(d_conv, conv_bias)
        self._steps = partial(
            step_projection,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_scale=dt_scale,
            dt_init=dt_init,
            dt_init_floor=dt_init_floor,
        )
        self._draw_steps(self.dt_proj)
        if bimamba_type == "v2":
            self.conv1d_b, self.x_proj_b, self.dt_proj_b = self._scan_layers(d_conv, conv_bias)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C], L >= 1. Differentiable in x and all parameters."""
        x, gate = self.in_proj(x).chunk(2, -1)  # [B, L, D] each
        y = self._both_directions(x) * F.silu(gate)
        y = self.out_proj(y)
        return y if self.gamma is None else y * self.gamma

    def reset_step_sizes(self) -> None:
        """Draw the step sizes of both directions anew: for networks that initialise all linear layers alike."""
        self._draw_steps(self.dt_proj)
        if self.bimamba_type == "v2":
            self._draw_steps(self.dt_proj_b)

    def _draw_steps(self, dt_proj: nn.Linear) -> None:
        weight, bias = self._steps(self.d_inner, self.dt_rank, 1)
        with torch.no_grad():
            dt_proj.weight.copy_(weight[0])
            dt_proj.bias.copy_(bias[0])

    def _both_directions(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D], before the gate, which both directions share."""
        mixed = _convolve(x, self.conv1d, FORWARD)
        y = self._scan(mixed, self.x_proj, self.dt_proj, "A_log", self.D, FORWARD)
        if self.bimamba_type == "none":
            return y
        if self.bimamba_type == "v1":
            return y + self._scan(mixed, self.x_proj, self.dt_proj, "A_b_log", self.D, BACKWARD)
        mixed = _convolve(x, self.conv1d_b, BACKWARD)
        y = y + self._scan(mixed, self.x_proj_b, self.dt_proj_b, "A_b_log", self.D_b, BACKWARD)
        return 0.5 * y if self.if_divide_out else y

    def _scan(
        self, x: Tensor, x_proj: nn.Linear, dt_proj: nn.Linear, logarithms: str, skip: Tensor, direction: int
    ) -> Tensor:
        """[B, L, D] -> [B, L, D]: the sequence as an image of one row, so that no tensor is turned round."""
        projection = x_proj(x)[:, None, :, None]  # [B, 1, L, 1, R + 2N]
        parameters = (dt_proj.weight, dt_proj.bias, self.decay(logarithms), skip.float())
        y = ss2d_scan(x.unsqueeze(1), projection, *(p.unsqueeze(0) for p in parameters), directions=(direction,))
        return y.squeeze(1)

    def _scan_layers(self, d_conv: int, conv_bias: bool) -> tuple[nn.Conv1d, nn.Linear, nn.Linear]:
        inner, rank = self.d_inner, self.dt_rank
        convolution = nn.Conv1d(inner, inner, d_conv, padding=d_conv - 1, groups=inner, bias=conv_bias)
        return convolution, nn.Linear(inner, rank + 2 * self.d_state, bias=False), nn.Linear(rank, inner)


def _convolve(x: Tensor, convolution: nn.Conv1d, direction: int) -> Tensor:
    """[B, L, D] -> [B, L, D], SiLU: a token sees itself and those before it, BACKWARD those behind it."""
    reach = convolution.kernel_size[0] - 1
    weight = convolution.weight if direction == FORWARD else convolution.weight.flip(-1)
    y = F.conv1d(x.transpose(1, 2), weight, convolution.bias, padding=reach, groups=x.shape[2])  # [B, D, L + reach]
    y = y[..., : x.shape[1]] if direction == FORWARD else y[..., reach:]
    return F.silu(y.transpose(1, 2).contiguous())


class MambaBlock(nn.Module):
    """Add to the residual, normalise, mix: returns the mixer's output and the residual, which the next block adds.

    Args:
        mixer: [B, L, C] -> [B, L, C].
        norm: normalisation over C.
        drop_path: rate of stochastic depth of the incoming branch.
        residual_in_fp32: keep the residual in float32 when the branch has lower precision.
    """

    def __init__(
        self, mixer: nn.Module, norm: nn.Module, drop_path: float = 0.0, *, residual_in_fp32: bool = True
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = norm
        self.drop_path = DropPath(drop_path)
        self.residual_in_fp32 = residual_in_fp32

    def forward(self, hidden: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """hidden, residual [B, L, C] (no residual for the first block) -> the next hidden and residual."""
        total = hidden if residual is None else self.drop_path(hidden) + residual
        if self.residual_in_fp32 and total.dtype in (torch.float16, torch.bfloat16):
            total = total.float()
        return self.mixer(self.norm(total.to(next(self.norm.parameters())))), total


def token_norm(dim: int, epsilon: float, *, rms_norm: bool) -> nn.Module:
    """RMSNorm or LayerNorm of ``dim`` channels."""
    return nn.RMSNorm(dim, eps=epsilon) if rms_norm else nn.LayerNorm(dim, eps=epsilon)
