"""The pixel losses against their formulas, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from mambair.losses import build_loss
from mambair.registry import LOSS_REGISTRY, basicsr_installed

FORMULAS = {
    "L1Loss": (lambda d: d.abs(), {}),
    "MSELoss": (lambda d: d**2, {}),
    "CharbonnierLoss": (lambda d: (d**2 + 1e-12) ** 0.5, {}),
    "CharbonnierLoss, eps 1e-3 as published": (lambda d: (d**2 + 1e-3) ** 0.5, {"eps": 1e-3}),
}


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, 5, 7, generator=generator), torch.rand(2, 3, 5, 7, generator=generator)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_is_the_formula(name: str, reduction: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    formula, arguments = FORMULAS[name]
    errors = formula(pair[0].double() - pair[1].double())
    expected = {"mean": errors.mean(), "sum": errors.sum(), "none": errors}[reduction]
    loss = build_loss({"type": name.split(",")[0], "loss_weight": 0.5, "reduction": reduction, **arguments})
    # float32 sums of 210 numbers against float64
    torch.testing.assert_close(loss(*pair).double(), 0.5 * expected, rtol=1e-6, atol=1e-7)


def test_weighted_mean_is_over_the_weights(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    weight = torch.zeros(2, 1, 5, 7)
    weight[:, :, 1:3] = 2.0
    expected = (pair[0] - pair[1]).abs()[:, :, 1:3].mean()
    torch.testing.assert_close(build_loss({"type": "L1Loss"})(*pair, weight), expected)


def test_charbonnier_has_a_finite_gradient_where_images_agree() -> None:
    image = torch.ones(1, 1, 2, 2, requires_grad=True)
    build_loss({"type": "CharbonnierLoss"})(image, torch.ones(1, 1, 2, 2)).backward()
    assert torch.equal(image.grad, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("opt", "error", "text"),
    [
        ({"type": "L1Loss", "reduction": "average"}, ValueError, "one of none, mean, sum, found 'average'"),
        ({"type": "CharbonnierLoss", "eps": 0}, ValueError, "eps must be positive"),
        ({"type": "L1Loss", "los_weight": 1}, TypeError, "los_weight"),
        ({"type": "L1Losss"}, KeyError, "L1Loss"),
    ],
    ids=["reduction", "eps", "misspelt argument", "unknown type"],
)
def test_what_is_refused(opt: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build_loss(opt)


def test_other_shapes_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"found \[1, 3, 4, 4\] and \[1, 1, 4, 4\]"):
        build_loss({"type": "L1Loss"})(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss"])
def test_equal_to_basicsr(name: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    if not basicsr_installed():
        pytest.skip("basicsr is not installed")
    theirs = LOSS_REGISTRY.get(f"basicsr/{name}")(loss_weight=0.3)
    ours = build_loss({"type": name, "loss_weight": 0.3})
    weight = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours(*pair, weight), theirs(*pair, weight))
