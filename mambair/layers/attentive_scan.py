"""The attentive state-space layer of MambaIRv2 (Guo et al., CVPR 2025, figure 4): pixels sorted by meaning, one scan.

Every pixel chooses one of T prompts; pixels are scanned in the order of their choices, and the prompt of the chosen
class is added to the output matrix C of the scan. Two oddities of the published network are kept, as its weights were
trained with them: Gumbel noise takes part in the choice in eval mode too, and the prompt added to the t-th token of the
sorted sequence is that of the t-th pixel of the image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.decay import DecayingScan
from mambair.layers.permutation import inverse_permutation, permute_rows
from mambair.layers.ssm_init import input_projection, skip_weights, state_decay_logs, step_projection
from mambair.layers.tokens import as_image, as_tokens
from mambair.ops import selective_scan


class PromptedScan(DecayingScan):
    """One causal selective scan over tokens in a given order, with a prompt added to its output matrix.

    Args:
        inner: channels D.
        d_state: state size N.
    """

    def __init__(self, inner: int, d_state: int) -> None:
        super().__init__()
        self.d_state = d_state
        self.dt_rank = math.ceil(inner / 16)
        self.x_proj_weight = input_projection(inner, self.dt_rank + 2 * d_state, 1)  # [1, R + 2N, D]
        self.dt_projs_weight, self.dt_projs_bias = step_projection(inner, self.dt_rank, 1)
        self.A_logs = state_decay_logs(inner, d_state, 1)  # [D, N]
        self.Ds = skip_weights(inner, 1)  # [D]

    def forward(self, x: Tensor, prompt: Tensor, index: Tensor) -> Tensor:
        """Scan.

        Args:
            x: [B, L, D].
            prompt: [B, L, N], added to C of the same pixel.
            index: int64 [B, L]; token t of the scan is pixel index[b, t].

        Returns:
            [B, L, D], at the pixels' places.
        """
        sizes = (self.dt_rank, self.d_state, self.d_state)
        dt, into, out_of = F.linear(x, self.x_proj_weight[0]).split(sizes, dim=-1)
        delta = F.linear(dt, self.dt_projs_weight[0])
        decay = self.decay("A_logs")
        out_of = (out_of + prompt).unsqueeze(2)  # [B, L, 1, N]
        skip, bias = self.Ds.float(), self.dt_projs_bias[0].float()
        return selective_scan(
            x, delta, decay, into.unsqueeze(2), out_of, skip, None, bias, delta_softplus=True, index=index
        )


class AttentiveStateSpace(nn.Module):
    """Choose a prompt for every pixel, scan the pixels in the order of their choices ("ASSM").

    Args:
        dim: channels C.
        d_state: state size N.
        num_tokens: prompts T to choose from.
        inner_rank: the prompts are a product [T, inner_rank] x [inner_rank, N].
        mlp_ratio: the scan has int(mlp_ratio * C) channels.
    """

    def __init__(
        self, dim: int, d_state: int, num_tokens: int = 64, inner_rank: int = 128, mlp_ratio: float = 2.0
    ) -> None:
        super().__init__()
        inner, hidden = int(mlp_ratio * dim), max(1, dim // 3)
        self.num_tokens = num_tokens
        self.selectiveScan = PromptedScan(inner, d_state)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim)
        self.in_proj = nn.Sequential(nn.Conv2d(dim, inner, 1))
        self.CPE = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1, groups=inner))
        self.embeddingB = nn.Embedding(num_tokens, inner_rank)
        nn.init.uniform_(self.embeddingB.weight, -1 / num_tokens, 1 / num_tokens)
        # the published network ends this with LogSoftmax, which changes neither the choice nor the softmax of it
        self.route = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, num_tokens))

    def forward(self, x: Tensor, prompt_basis: Tensor, noise: Tensor | None) -> Tensor:
        """Mix the pixels of an image.

        Args:
            x: [B, H, W, C].
            prompt_basis: second factor of the prompts [inner_rank, N].
            noise: Gumbel noise [B, H * W, T] added to the scores, or None for the plain best choice. Ties of the choice
                go to the lower class; pixels of one class keep their raster order.

        Returns:
            [B, H, W, C], differentiable in everything; the choice by the straight-through estimate.
        """
        batch, height, width, _ = x.shape
        scores = self.route(x).flatten(1, 2).float()  # [B, L, T]
        prompt, index = self._choose(scores if noise is None else scores + noise, prompt_basis)
        inner = self.in_proj(as_image(x))
        inner = as_tokens(inner * torch.sigmoid(self.CPE(inner))).flatten(1, 2)  # [B, L, D]
        y = self.selectiveScan(inner, prompt, index)
        return self.out_proj(self.out_norm(y)).view(batch, height, width, -1)

    def _choose(self, scores: Tensor, prompt_basis: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, L, T] -> (prompt for the place where it will be added [B, L, N], pixels in scan order [B, L])."""
        batch, length, classes = scores.shape
        choice = scores.argmax(-1)  # [B, L]
        first = torch.arange(0, batch * length, length, device=scores.device)[:, None]  # number of a sample's first row
        order, place = _sort_stably(choice, classes)
        table = self.embeddingB.weight @ prompt_basis  # [T, N]
        if torch.is_grad_enabled() and scores.requires_grad:
            prompt = _Chosen.apply(table, scores.softmax(-1).flatten(0, 1), choice.flatten())
        else:
            prompt = table.index_select(0, choice.flatten())
        prompt = permute_rows(prompt, place, order)
        return prompt.view(batch, length, -1), order.view(batch, length) - first


class _Chosen(torch.autograd.Function):
    """Rows of a table by number. For the gradient, the row is the mean of all rows under the likelihoods."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, likely: Tensor, choice: Tensor) -> Tensor:
        ctx.save_for_backward(table, choice)
        return table.index_select(0, choice)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        table, choice = ctx.saved_tensors
        grad = grad_outputs[0].to(table.dtype)
        return torch.zeros_like(table).index_add_(0, choice, grad), grad @ table.t(), None


def _sort_stably(choice: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Rows [B, L] of class numbers -> (order, place), int64 [B * L]: sample by sample, and in it class by class.

    One sort of a flat list of short integers is a counting sort in torch; a sort of rows is not.
    """
    batch = choice.shape[0]
    short = torch.int16 if batch * classes <= torch.iinfo(torch.int16).max else torch.int32
    samples = torch.arange(0, batch * classes, classes, device=choice.device)[:, None]
    order = torch.sort((choice + samples).flatten().to(short), stable=True).indices
    return order, inverse_permutation(order)


def gumbel_noise(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Float32 Gumbel noise: what ``torch.nn.functional.gumbel_softmax`` draws from a generator in the same state."""
    if device.type != "cpu":
        return -torch.empty(shape, device=device).exponential_(generator=generator).log()
    # the numbers that exponential_ computes one by one, in vector instructions
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
    return uniform.neg_().log1p_().to(torch.float32).neg_().log_().neg_()


def placed_noise(
    batch: int,
    sides: tuple[int, int],
    classes: int,
    *,
    seed: int,
    layer: int,
    origin: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Gumbel noise that is a fixed function of the seed, the layer and each pixel's place in the picture.

    The 32-bit hash is made of integer operations alone, so its bits are equal on every device and in every batch.

    Args:
        batch: images B.
        sides: their height and width.
        classes: prompts T.
        seed: any integer; 64 bits of it count.
        layer: number of the layer in the network.
        origin: integers [B, 2], the row and column in the picture of each image's first pixel; None is (0, 0).
        device: where the result lies.

    Returns:
        float32 [B, H * W, T], finite.
    """
    height, width = sides
    rows = torch.arange(height, dtype=torch.int32, device=device).expand(batch, height)
    columns = torch.arange(width, dtype=torch.int32, device=device).expand(batch, width)
    if origin is not None:
        origin = origin.to(device, torch.int32)
        rows, columns = rows + origin[:, :1], columns + origin[:, 1:]
    key = rows
    for word in (seed, seed >> 32, layer):
        key = _mixed(key + _signed(word))
    pixels = _mixed(key[:, :, None] + _mixed(columns + 1)[:, None, :]).flatten(1)  # [B, L]
    names = _mixed(torch.arange(1, classes + 1, dtype=torch.int32, device=device))
    bits = _mixed(pixels[..., None] ^ names) >> 9  # 23 bits with their sign
    uniform = (bits.to(torch.float32) + (2**22 + 0.5)) * 2.0**-23  # exact, inside (0, 1)
    return uniform.log_().neg_().log_().neg_()


def _mixed(x: Tensor) -> Tensor:
    """A hash of int32 numbers, best in the upper bits; products wrap, and shifts bring zeros in."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(0x846CA68B)
    return x


def _signed(word: int) -> int:
    """The lower 32 bits of an integer as a signed number."""
    return ((word + 2**31) & 0xFFFFFFFF) - 2**31
