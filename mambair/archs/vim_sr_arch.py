"""VimSR: image restoration by the blocks of Vision Mamba (Zhu et al., ICML 2024), every pixel a token."""

from __future__ import annotations

import re
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mambair.archs.classifier_start import copy_body
from mambair.archs.detectors import Weights, count, register_detector, shortest_ratio
from mambair.archs.restoration_network import RestorationNetwork, detect_frame
from mambair.layers.activation_checkpoint import call_block
from mambair.layers.bidirectional_mamba import BidirectionalMamba, BimambaType, MambaBlock
from mambair.layers.drop_path import linear_drop_rates
from mambair.registry import ARCH_REGISTRY

BODY = re.compile(r"layers\.\d+\.")


@ARCH_REGISTRY.register()
class VimSR(RestorationNetwork):
    """Convolution, bidirectional 1-D blocks along rows and columns in turn, convolution, tail; added to the input.

    The names of the body are those of VisionMamba, so that it can start from a classification network.

    Args:
        in_chans: channels of the image: 3 for RGB, 1 for grey.
        embed_dim: channels C.
        depth: blocks, at least 1; the first reads the pixels row by row, the second column by column, and so on.
        d_state: state size N of the scans.
        expand: inner channels of a block are int(expand * C).
        bimamba_type: see BidirectionalMamba.
        drop_path_rate: highest rate of stochastic depth; rises linearly from 0 over the blocks.
        drop_rate: dropout rate of the first features.
        patch_norm: whether the first features are normalised.
        use_checkpoint: activation checkpointing of every block in training.
        upscale: factor of enlargement; default 2, or 1 without upsampler.
        img_range: the image is multiplied by it inside.
        upsampler: "pixelshuffle", "pixelshuffledirect" (fewer parameters), or "" (denoising, JPEG).
        resi_connection: "1conv" or "3conv" after the blocks.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 64,
        depth: int = 12,
        d_state: int = 16,
        expand: float = 2.0,
        bimamba_type: BimambaType = "v2",
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int | None = None,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        blocks = [
            MambaBlock(
                BidirectionalMamba(embed_dim, d_state=d_state, expand=expand, bimamba_type=bimamba_type),
                nn.RMSNorm(embed_dim, eps=1e-5),
                rate,
            )
            for rate in linear_drop_rates(drop_path_rate, (depth,))[0]
        ]
        super().__init__(
            blocks,
            in_chans=in_chans,
            embed_dim=embed_dim,
            upscale=upscale,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
            drop_rate=drop_rate,
            norm_layer=nn.LayerNorm,
            patch_norm=patch_norm,
        )
        self.use_checkpoint = use_checkpoint
        for module in self.modules():
            if isinstance(module, BidirectionalMamba):
                module.reset_step_sizes()

    def load_classifier_weights(self, weights: Weights) -> None:
        """Start the blocks from the first ``depth`` blocks of a VisionMamba, as ``mambair.load`` gives its state dict.

        Raises:
            ValueError: they do not fit (``embed_dim``, ``d_state``, ``expand``, ``bimamba_type``); they are listed.
        """
        copy_body(self, weights, BODY)

    def _body(self, tokens: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]; between blocks hidden and residual lie as the block before has read them."""
        hidden, residual = tokens, None
        for block in self.layers:
            shape = hidden.shape
            flat = None if residual is None else residual.flatten(1, 2)
            hidden, residual = call_block(
                block, hidden.flatten(1, 2), flat, recompute=self.use_checkpoint and self.training
            )
            hidden, residual = hidden.view(shape).transpose(1, 2), residual.view(shape).transpose(1, 2)
        total = hidden if residual is None else hidden + residual
        return total.transpose(1, 2) if len(self.layers) % 2 else total

    def _tail(self, features: Tensor, x: Tensor) -> Tensor:
        if not self.upsampler:
            return super()._tail(features, x)
        return super()._tail(features, x) + F.interpolate(x, scale_factor=self.upscale, mode="bicubic")


@register_detector("VimSR", r"conv_first\.weight", r"layers\.0\.mixer\.A_log", r"conv_after_body\.")
def detect_vim_sr(weights: Weights) -> dict[str, Any] | None:
    """The arguments of VimSR that its weights tell (not ``img_range`` and the training-time rates)."""
    frame, depth = detect_frame(weights), count(weights, r"layers\.(\d+)\.")
    if frame is None or not depth:
        return None
    mixer = "layers.0.mixer."
    inner, state = weights[mixer + "A_log"].shape
    return frame | {
        "depth": depth,
        "d_state": state,
        "expand": shortest_ratio((frame["embed_dim"], inner)),
        "bimamba_type": "v2" if mixer + "D_b" in weights else "v1" if mixer + "A_b_log" in weights else "none",
    }
