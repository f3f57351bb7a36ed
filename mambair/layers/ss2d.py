"""SS2D: the 2-D selective scan layer of VMamba (Liu et al., 2024), as MambaIR (Guo et al., ECCV 2024) has it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers import fused
from mambair.layers.decay import DecayingScan
from mambair.layers.layouts import AsImage, AsTokens, make_activation
from mambair.layers.ssm_init import input_projection, random_scan_parameters, scan_parameters
from mambair.layers.tokens import as_image, as_tokens
from mambair.ops import fused as fused_ops
from mambair.ops import ss2d_scan

DIRECTIONS = 4  # parameter sets; by default rows, columns, reversed rows, reversed columns
OutNorm = Literal["layer", "none", "dwconv3", "layer_dwconv3", "softmax", "sigmoid"]


class SS2D(DecayingScan):
    """2-D state-space layer: every pixel sees the whole image along rows and columns, forward and backward.

    Args:
        d_model: channels C.
        d_state: state size N.
        d_conv: side of the depthwise convolution, odd; below 2 there is none.
        expand: inner channels D = int(expand * C).
        dt_rank: R; "auto" is ceil(C / 16).
        dt_min, dt_max, dt_init, dt_scale, dt_init_floor: initial step sizes, see ``ssm_init.step_projection``.
        dropout: dropout rate of the output.
        conv_bias, bias: whether the convolution, the two linear layers, have a bias.
        activation: after the convolution, see ``layouts.ACTIVATIONS``.
        gate: activation of the gate ("identity" for a gate without one); None for a layer without gate.
        out_norm: what follows the scan: normalisation over the channels ("layer"), nothing, a depthwise 3x3
            convolution, both, softmax over the pixels of each channel, sigmoid.
        out_act: activation after ``out_norm``.
        directions: order of the pixels for each of the four parameter sets, see ``mambair.ops.ss2d_scan``.
        initialize: "v0" draws the scan's parameters as Mamba does, "v1" and "v2" at random, see ``ssm_init``.
        channel_first: input and output are [B, C, H, W].

    Raises:
        ValueError: a size is not positive, ``d_conv`` is even, a name is unknown, or there are not four directions.
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
        *,
        activation: str = "silu",
        gate: str | None = "silu",
        out_norm: OutNorm = "layer",
        out_act: str = "identity",
        directions: Sequence[int] = (0, 1, 2, 3),
        initialize: Literal["v0", "v1", "v2"] = "v0",
        channel_first: bool = False,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        _check_sizes(d_model, d_state, inner, d_conv, directions)
        self.d_model, self.d_state, self.d_inner = d_model, d_state, inner
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.directions = tuple(directions)
        self.channel_first = channel_first
        self.in_proj = nn.Linear(d_model, inner if gate is None else 2 * inner, bias=bias)
        self.conv2d = _depthwise(inner, d_conv, conv_bias) if d_conv > 1 else nn.Identity()
        self.act = make_activation(activation)
        self.gate_act = make_activation(gate) if gate is not None else None
        self.x_proj_weight = input_projection(inner, self.dt_rank + 2 * d_state, DIRECTIONS)  # [K, R + 2N, D]
        # [K, D, R], [K, D], [K * D, N], [K * D]
        self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds = (
            scan_parameters(
                inner,
                d_state,
                self.dt_rank,
                DIRECTIONS,
                dt_min=dt_min,
                dt_max=dt_max,
                dt_scale=dt_scale,
                dt_init=dt_init,
                dt_init_floor=dt_init_floor,
            )
            if initialize == "v0"
            else random_scan_parameters(inner, d_state, self.dt_rank, DIRECTIONS, initialize)
        )
        self.out_norm = _make_out_norm(out_norm, inner)
        self.out_act = make_activation(out_act)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C] ([B, C, H, W] with ``channel_first``), any H, W >= 1.

        Differentiable in x and all parameters. Under autocast the linear layers run in the lower precision; the scan
        keeps its state in float32.
        """
        if self.channel_first:
            return as_image(self._transform(as_tokens(x)))
        return self._transform(x)

    def _transform(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        if self.can_fuse() and fused.runs(self, x):
            return self.fused(x)
        x, gate = self._split(x)
        x = self.act(as_tokens(self.conv2d(as_image(x))))
        y = self.out_act(self.out_norm(self._scan(x)))
        if self.gate_act is not None and gate is not None:
            y = y * self.gate_act(gate)
        return self.dropout(self.out_proj(y))

    def can_fuse(self) -> bool:
        """Whether ``fused`` does what this layer's options say."""
        norm, act, gate, out_act = map(type, (self.out_norm, self.act, self.gate_act, self.out_act))
        common = (norm, act, out_act) == (nn.LayerNorm, nn.SiLU, nn.Identity) and gate in (nn.SiLU, type(None))
        return common and isinstance(self.conv2d, nn.Conv2d) and self.conv2d.kernel_size == (3, 3)

    def fused(self, x: Tensor, norm: nn.LayerNorm | None = None, skip_scale: Tensor | None = None) -> Tensor:
        """The layer of ``norm(x)``, and x * skip_scale added, in three passes and the scan: see ``layers.fused``."""
        gated = self.gate_act is not None
        convolution, out_norm = cast("nn.Conv2d", self.conv2d), cast("nn.LayerNorm", self.out_norm)
        inner, gate = fused_ops.token_layers(x, self.in_proj, norm=norm, gated=gated)
        inner, projection = fused_ops.depthwise_layers(inner, convolution, "silu", self.x_proj_weight.flatten(0, 1))
        y = self._scan_along(inner, range(DIRECTIONS), self.directions, projection)
        del inner, projection  # a third of the pass's memory
        residual = None if skip_scale is None else (x, skip_scale)
        gate = gate if gated else None
        return fused_ops.token_layers(y, self.out_proj, norm=out_norm, gate=gate, residual=residual)[0]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Two products with halves of one weight: each result is contiguous, one product's halves would not be."""
        if self.gate_act is None:
            return self.in_proj(x), None
        weights = self.in_proj.weight.chunk(2)
        biases = self.in_proj.bias.chunk(2) if self.in_proj.bias is not None else (None, None)
        return F.linear(x, weights[0], biases[0]), F.linear(x, weights[1], biases[1])

    def _scan(self, x: Tensor) -> Tensor:
        """[B, H, W, D] -> [B, H, W, D]. The projections of all directions are one product on x in raster order."""
        return self._scan_along(x, range(DIRECTIONS), self.directions)

    def _scan_along(
        self, x: Tensor, sets: range, directions: Sequence[int], projection: Tensor | None = None
    ) -> Tensor:
        """The scan with some of the parameter sets, one after the other in ``directions``."""
        part = slice(sets.start, sets.stop)
        if projection is None:
            projection = F.linear(x, self.x_proj_weight[part].flatten(0, 1))
        projection = projection.unflatten(-1, (len(sets), -1))
        decay = self.decay("A_logs").view(DIRECTIONS, self.d_inner, self.d_state)[part]
        skip = self.Ds.float().view(DIRECTIONS, self.d_inner)[part]
        weight, bias = self.dt_projs_weight[part], self.dt_projs_bias[part]
        return ss2d_scan(x, projection, weight, bias, decay, skip, directions=directions)  # projection [B,H,W,K,R+2N]


class _PixelSoftmax(nn.Module):
    """Softmax over the pixels of each channel of [B, H, W, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2).softmax(1).view(x.shape)


def _depthwise(channels: int, kernel_size: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)


def _make_out_norm(name: str, inner: int) -> nn.Module:
    """The module after the scan, [B, H, W, D] -> [B, H, W, D]."""
    if name == "layer":
        return nn.LayerNorm(inner)
    if name == "none":
        return nn.Identity()
    if name == "dwconv3":
        return nn.Sequential(AsImage(), _depthwise(inner, 3, bias=False), AsTokens())
    if name == "layer_dwconv3":
        return nn.Sequential(nn.LayerNorm(inner), AsImage(), _depthwise(inner, 3, bias=False), AsTokens())
    if name == "softmax":
        return _PixelSoftmax()
    if name == "sigmoid":
        return nn.Sigmoid()
    raise ValueError(
        f"out_norm must be 'layer', 'none', 'dwconv3', 'layer_dwconv3', 'softmax' or 'sigmoid', got {name!r}"
    )


def _check_sizes(d_model: int, d_state: int, inner: int, d_conv: int, directions: Sequence[int]) -> None:
    if d_model < 1 or d_state < 1 or inner < 1:
        raise ValueError(
            f"d_model, d_state and int(expand * d_model) must be at least 1, got {d_model}, {d_state}, {inner}"
        )
    if d_conv > 1 and d_conv % 2 == 0:
        raise ValueError(f"d_conv must be odd to keep the image size, got {d_conv}")
    if len(directions) != DIRECTIONS:
        raise ValueError(f"directions must be {DIRECTIONS} numbers, got {list(directions)}")
