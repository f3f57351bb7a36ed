"""The output of a network of ours is an ordinary contiguous tensor: others call ``.view`` on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mambair.archs import build

LIGHT = {"embed_dim": 8, "depths": [1], "d_state": 2}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "MambaIR x2": ("MambaIR", LIGHT | {"upsampler": "pixelshuffledirect", "upscale": 2}),
    "MambaIR x1": ("MambaIR", LIGHT),
    "MambaIRv2 x2": (
        "MambaIRv2",
        LIGHT | {"num_heads": [2], "window_size": 4, "inner_rank": 4, "num_tokens": 4, "upsampler": "pixelshuffle"},
    ),
    "MambaIRv2 x1": ("MambaIRv2", LIGHT | {"num_heads": [2], "window_size": 4, "inner_rank": 4, "num_tokens": 4}),
    "MambaIRUNet": ("MambaIRUNet", {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}),
    "VSSMUNet": ("VSSMUNet", {"dims": [8, 16], "depths": [1, 1], "shallow_dim": 4}),
    "VimSR": ("VimSR", {"embed_dim": 8, "depth": 1, "d_state": 2}),
}


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("side", [16, 13], ids=["fits the tiles", "is padded and cropped"])
@pytest.mark.parametrize(("name", "arguments"), NETWORKS.values(), ids=NETWORKS.keys())
def test_outputs_are_contiguous(name: str, arguments: dict[str, Any], side: int, is_training: bool) -> None:
    net = build(name, arguments).train(is_training)
    output = net(torch.rand(2, 3, side, side))
    assert output.is_contiguous()
    assert output.view(2, -1).shape[1] == output[0].numel()
