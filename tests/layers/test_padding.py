from __future__ import annotations

import pytest
import torch

from mambair.layers.padding import pad_mirrored


@pytest.mark.parametrize(
    ("side", "multiple", "repeat_edge", "expected"),
    [
        (3, 8, True, [0, 1, 2, 2, 1, 0, 0, 1]),
        (3, 8, False, [0, 1, 2, 1, 0, 1, 2, 1]),
        (5, 4, True, [0, 1, 2, 3, 4, 4, 3, 2]),
        (5, 4, False, [0, 1, 2, 3, 4, 3, 2, 1]),
        (1, 4, True, [0, 0, 0, 0]),
        (1, 4, False, [0, 0, 0, 0]),
        (4, 4, True, [0, 1, 2, 3]),
    ],
)
def test_both_axes(side, multiple, repeat_edge, expected):
    line = torch.arange(float(side))
    image = (line[:, None] * 10 + line).view(1, 1, side, side)
    wanted = torch.tensor(expected, dtype=torch.float32)
    padded = pad_mirrored(image, multiple, repeat_edge=repeat_edge)
    assert torch.equal(padded[0, 0], wanted[:, None] * 10 + wanted)


def test_nothing_to_do_is_free():
    image = torch.rand(1, 3, 8, 16)
    assert pad_mirrored(image, 8, repeat_edge=True) is image
