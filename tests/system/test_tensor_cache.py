"""What tracing makes is not kept; what a cache holds serves tracing, too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mambair.images.resize import imresize
from mambair.layers.window_attention import border_masks, window_order

CPU = torch.device("cpu")
SHAPES = iter(range(1, 99))


class Calling(nn.Module):
    def __init__(self, function: Callable[[], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.function().sum()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("first", ["traced", "eager"])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: window_order(1, 4 * number, 4, 4, 2, CPU).order,
        lambda number: window_order(1, 4 * number, 4, 4, 0, CPU).inverse,
        lambda number: border_masks(number + 1, 1, CPU),
    ],
    ids=["order", "inverse", "masks"],
)
def test_a_traced_call_leaves_no_stand_in(make: Callable[[int], Tensor], first: str, strict: bool) -> None:
    number = next(SHAPES)  # a result that no other test has asked for
    if first == "eager":
        assert type(make(number)) is Tensor
    program = torch.export.export(Calling(lambda: make(number)), (torch.zeros(1),), strict=strict)
    made = make(number)
    assert type(made) is Tensor
    assert make(number) is made, "it is kept"
    assert program.module()(torch.zeros(1)).item() == made.sum().item()


def test_resizing_refuses_to_be_traced_and_goes_on_after_it() -> None:
    image = np.full((7, 9), 0.5, np.float32)
    module = Calling(lambda: torch.full((1,), imresize(image, 3).size))
    with pytest.raises(RuntimeError, match="imresize: computes with values, and cannot be traced"):
        torch.export.export(module, (torch.zeros(1),), strict=False)
    assert np.allclose(imresize(image, 3), 0.5)
