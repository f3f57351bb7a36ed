from __future__ import annotations

import pytest
import torch

from mambair.layers import Upsample, UpsampleOneStep


@pytest.mark.parametrize(("scale", "convolutions"), [(1, 0), (2, 1), (3, 1), (4, 2), (8, 3)])
def test_sizes(scale, convolutions):
    tail = Upsample(scale, 4)
    assert tail(torch.randn(1, 4, 3, 5)).shape == (1, 4, 3 * scale, 5 * scale)
    assert len(tail) == 2 * convolutions
    assert UpsampleOneStep(scale, 4, 3)(torch.randn(1, 4, 3, 5)).shape == (1, 3, 3 * scale, 5 * scale)


@pytest.mark.parametrize("scale", [0, 5, 6, -2])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=f"scale of {scale}"):
        Upsample(scale, 4)
