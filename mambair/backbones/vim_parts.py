"""The parts of Vision Mamba (Zhu et al., ICML 2024): patches and blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mambair.layers.bidirectional_mamba import BidirectionalMamba, BimambaType, MambaBlock, token_norm


def create_block(
    d_model: int,
    d_state: int = 16,
    ssm_cfg: Mapping[str, Any] | None = None,
    norm_epsilon: float = 1e-5,
    drop_path: float = 0.0,
    rms_norm: bool = True,
    residual_in_fp32: bool = True,
    fused_add_norm: bool = True,
    if_bimamba: bool = False,
    bimamba_type: BimambaType = "v2",
    if_divide_out: bool = True,
    init_layer_scale: float | None = None,
) -> MambaBlock:
    """One block of Vision Mamba: ``hidden, residual = block(hidden, residual)`` on [B, L, d_model].

    Args:
        d_model, d_state, bimamba_type, if_divide_out, init_layer_scale: see BidirectionalMamba.
        ssm_cfg: further arguments of BidirectionalMamba, by name.
        norm_epsilon, rms_norm: of the normalisation: RMSNorm or LayerNorm.
        drop_path, residual_in_fp32: see MambaBlock.
        fused_add_norm: no influence; accepted because published configurations give it.
        if_bimamba: the same as bimamba_type "v1".

    Raises:
        ValueError, TypeError: as BidirectionalMamba.
    """
    mixer = BidirectionalMamba(
        d_model,
        d_state=d_state,
        bimamba_type="v1" if if_bimamba else bimamba_type,
        if_divide_out=if_divide_out,
        init_layer_scale=init_layer_scale,
        **(ssm_cfg or {}),
    )
    norm = token_norm(d_model, norm_epsilon, rms_norm=rms_norm)
    return MambaBlock(mixer, norm, drop_path, residual_in_fp32=residual_in_fp32)


class PatchEmbed(nn.Module):
    """Image -> patches, by one convolution.

    Args:
        img_size: rows and columns of the image.
        patch_size: side of a patch.
        stride: step from patch to patch; below ``patch_size`` they overlap.
        channels: of the image.
        dim: channels C of a token.

    Raises:
        ValueError: the image is smaller than a patch.
    """

    def __init__(self, img_size: tuple[int, int], patch_size: int, stride: int, channels: int, dim: int) -> None:
        super().__init__()
        if min(img_size) < patch_size or stride < 1:
            raise ValueError(f"img_size {img_size} must be at least patch_size {patch_size}, and stride {stride} >= 1")
        self.img_size = img_size
        self.grid_size = tuple((side - patch_size) // stride + 1 for side in img_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(channels, dim, patch_size, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, *img_size] -> [B, M, C], M patches in raster order."""
        if x.dim() != 4 or x.shape[1] != self.proj.in_channels or tuple(x.shape[2:]) != self.img_size:
            raise ValueError(
                f"x must be [B, {self.proj.in_channels}, {self.img_size[0]}, {self.img_size[1]}], got shape "
                f"{tuple(x.shape)}; build the network with img_size={tuple(x.shape[2:])} for other images"
            )
        return self.proj(x).flatten(2).transpose(1, 2)
