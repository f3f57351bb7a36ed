"""The definition itself: hand-worked numbers, exact gradients, the order of the four directions."""

from __future__ import annotations

import math

import pytest
import torch

from mambair.ops import reference


def test_three_tokens_by_hand() -> None:
    u = torch.tensor([[[2.0], [0.0], [1.0]]])
    delta = torch.tensor([[[1.0], [2.0], [0.5]]])
    A = torch.tensor([[-math.log(2.0)]])  # a step of 1 halves the state
    B = torch.tensor([[[[3.0]], [[1.0]], [[4.0]]]])
    C = torch.tensor([[[[1.0]], [[10.0]], [[100.0]]]])
    y, state = reference.selective_scan(u, delta, A, B, C)
    first = 1.0 * 2.0 * 3.0
    second = first / 4.0
    third = second * 0.5**0.5 + 0.5 * 1.0 * 4.0
    torch.testing.assert_close(y, torch.tensor([[[first], [10 * second], [100 * third]]]))
    torch.testing.assert_close(state, torch.tensor([[[third]]]))


def test_skip_gate_bias_and_softplus_by_hand() -> None:
    one = torch.ones(1, 1, 1)
    y, _ = reference.selective_scan(
        one, one, torch.tensor([[0.0]]), one.unsqueeze(-1), 2 * one.unsqueeze(-1), D=torch.tensor([5.0]), z=3 * one,
        delta_bias=torch.tensor([0.5]), delta_softplus=True,
    )  # fmt: skip
    step = math.log1p(math.exp(1.5))
    gate = 3.0 / (1.0 + math.exp(-3.0))
    assert y.item() == pytest.approx((2 * step + 5.0) * gate, rel=1e-6)


@pytest.mark.parametrize(
    ("direction", "order"),
    [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 3, 1, 4, 2, 5]), (2, [5, 4, 3, 2, 1, 0]), (3, [5, 2, 4, 1, 3, 0])],
    ids=["rows", "columns", "rows-backwards", "columns-backwards"],
)
def test_order_of_a_2x3_image(direction: int, order: list[int]) -> None:
    assert reference.scan_order(direction, 2, 3).tolist() == order


@pytest.mark.parametrize("direction", range(4))
def test_influence_flows_along_the_direction_only(direction: int) -> None:
    """A change of one pixel reaches exactly the pixels that are scanned at the same time or later."""
    height, width, pixel = 3, 4, 6
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, height, width, 1, generator=generator)
    projection = torch.randn(1, height, width, 1, 3, generator=generator)
    parameters = (torch.ones(1, 1, 1), torch.zeros(1, 1), -torch.ones(1, 1, 1), torch.ones(1, 1))
    changed = x.clone()
    changed.view(-1)[pixel] += 1.0
    before, after = (
        reference.ss2d_scan(image, projection, *parameters, directions=[direction]).flatten() for image in (x, changed)
    )
    order = reference.scan_order(direction, height, width).tolist()
    assert sorted(torch.nonzero(before != after).flatten().tolist()) == sorted(order[order.index(pixel) :])


def test_gradcheck_selective_scan() -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    index = torch.tensor([[2, 0, 3, 1]])
    inputs = (random(1, 4, 2), random(1, 4, 2), random(2, 2), random(1, 4, 1, 2), random(1, 4, 1, 2))
    optional = (random(2), random(1, 4, 2), random(2), random(1, 2, 2))

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *first, state = tensors
        return reference.selective_scan(*first, delta_softplus=True, initial_state=state, index=index)

    assert torch.autograd.gradcheck(run, (*inputs, *optional))


def test_gradcheck_ss2d_scan() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [(1, 2, 2, 2), (1, 2, 2, 4, 3), (4, 2, 1), (4, 2), (4, 2, 1), (4, 2)]
    inputs = [torch.randn(*s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(reference.ss2d_scan, inputs)
