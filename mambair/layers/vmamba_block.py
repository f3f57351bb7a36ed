"""The parts of VMamba (Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024, figure 3).

Every part takes maps in one of two layouts, [B, H, W, C] or with ``channel_first`` [B, C, H, W]. Attribute names are
the published ones.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambair.layers.drop_path import DropPath
from mambair.layers.layouts import AsImage, AsTokens, make_activation, make_norm
from mambair.layers.tokens import as_image, as_tokens


class VMambaBlock(nn.Module):
    """A scan layer and an MLP, each on the normalised input and added to it ("VSSBlock" of VMamba).

    Args:
        norm, op: normalisation and scan layer; both None for a block without scan.
        norm2, mlp: normalisation and MLP; both None for a block without MLP.
        drop_path: rate of stochastic depth of both branches.
        post_norm: normalise the output of a branch instead of its input.
    """

    def __init__(
        self,
        norm: nn.Module | None,
        op: nn.Module | None,
        norm2: nn.Module | None,
        mlp: nn.Module | None,
        *,
        drop_path: float = 0.0,
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm, self.op = norm, op
        self.drop_path = DropPath(drop_path)
        self.norm2, self.mlp = norm2, mlp

    def forward(self, x: Tensor) -> Tensor:
        """A map in the layout of the parts -> the same shape."""
        x = self._add_branch(x, self.norm, self.op)
        return self._add_branch(x, self.norm2, self.mlp)

    def _add_branch(self, x: Tensor, norm: nn.Module | None, layer: nn.Module | None) -> Tensor:
        if norm is None or layer is None:
            return x
        return x + self.drop_path(norm(layer(x)) if self.post_norm else layer(norm(x)))


class MapMlp(nn.Module):
    """Two linear layers on the channels of every pixel, an activation between them ("Mlp", gated: "gMlp").

    Args:
        dim: channels C.
        hidden: channels between the layers.
        activation: see ``layouts.ACTIVATIONS``.
        drop: dropout rate after the activation and after the output.
        gated: the first layer is twice as wide, and one half is multiplied by the activation of the other; then
            ``drop`` acts on the output only.
        channel_first: the layout.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        activation: str = "gelu",
        drop: float = 0.0,
        *,
        gated: bool = False,
        channel_first: bool = False,
    ) -> None:
        super().__init__()
        self.gated, self.channel_first = gated, channel_first
        self.fc1 = nn.Linear(dim, 2 * hidden if gated else hidden)
        self.act = make_activation(activation)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """A map in the layout -> the same shape."""
        hidden = self.fc1(as_tokens(x) if self.channel_first else x)
        if self.gated:
            values, gate = hidden.chunk(2, -1)
            hidden = values * self.act(gate)
        else:
            hidden = self.drop(self.act(hidden))
        y = self.drop(self.fc2(hidden))
        return as_image(y) if self.channel_first else y


class PatchMerging2D(nn.Module):
    """Half the sides, more channels: 2 x 2 pixels side by side, normalised, through a linear layer.

    Args:
        dim: channels C of the input.
        out_dim: channels of the output; -1 for 2 * C.
        norm_layer: "ln" (channels last), "ln2d" or "bn" (channels first), of 4 * C channels.
    """

    def __init__(self, dim: int, out_dim: int = -1, norm_layer: str = "ln") -> None:
        super().__init__()
        self.channel_first = norm_layer != "ln"
        self.reduction = nn.Linear(4 * dim, 2 * dim if out_dim < 0 else out_dim, bias=False)
        self.norm = make_norm(norm_layer, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), out_dim]; odd sides grow by zeros at the bottom and right."""
        if self.channel_first:
            x = as_tokens(x)
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        patches = torch.cat(corners, -1)  # [B, H/2, W/2, 4C]
        if self.channel_first:
            return as_image(self.reduction(as_tokens(self.norm(as_image(patches)))))
        return self.reduction(self.norm(patches))


def patch_embedding(
    in_chans: int, dim: int, patch_size: int, norm_layer: str, *, patch_norm: bool, version: Literal["v1", "v2"]
) -> nn.Sequential:
    """Image [B, in_chans, H, W] -> map of ``dim`` channels in the layout of ``norm_layer``.

    "v1": one convolution as large as its stride, ``patch_size``. "v2": two overlapping ones with half that stride each.

    Raises:
        ValueError: another version, or an odd ``patch_size`` for "v2".
    """
    to_tokens, to_image = _layout_changes(norm_layer)

    def norm(channels: int) -> nn.Module:
        return make_norm(norm_layer, channels) if patch_norm else nn.Identity()

    if version == "v1":
        return nn.Sequential(nn.Conv2d(in_chans, dim, patch_size, patch_size), to_tokens(), norm(dim))
    if version != "v2":
        raise ValueError(f'patchembed_version must be "v1" or "v2", got {version!r}')
    if patch_size < 2 or patch_size % 2:
        raise ValueError(f'patchembed_version "v2" needs an even patch_size, got {patch_size}')
    stride = patch_size // 2
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, stride + 1, stride, padding=1),
        to_tokens(),
        norm(dim // 2),
        to_image(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, stride + 1, stride, padding=1),
        to_tokens(),
        norm(dim),
    )


def downsampling(dim: int, out_dim: int, norm_layer: str, *, version: Literal["v1", "v2", "v3", "none"]) -> nn.Module:
    """Half the sides between two stages, in the layout of ``norm_layer``.

    "v1": PatchMerging2D; "v2": a convolution of 2 x 2, which drops an odd last row; "v3": of 3 x 3; "none": nothing.

    Raises:
        ValueError: another version, or "none" for stages of different width.
    """
    if version == "v1":
        return PatchMerging2D(dim, out_dim, norm_layer)
    if version == "none":
        if dim != out_dim:
            raise ValueError(f'downsample_version "none" cannot go from {dim} to {out_dim} channels')
        return nn.Identity()
    if version not in ("v2", "v3"):
        raise ValueError(f'downsample_version must be "v1", "v2", "v3" or "none", got {version!r}')
    to_tokens, to_image = _layout_changes(norm_layer)
    kernel, padding = (2, 0) if version == "v2" else (3, 1)
    convolution = nn.Conv2d(dim, out_dim, kernel, 2, padding)
    return nn.Sequential(to_image(), convolution, to_tokens(), make_norm(norm_layer, out_dim))


def _layout_changes(norm_layer: str) -> tuple[type[nn.Module], type[nn.Module]]:
    """What stands after and before a convolution: a change of layout, or nothing in a channels-first network."""
    return (AsTokens, AsImage) if norm_layer == "ln" else (nn.Identity, nn.Identity)
