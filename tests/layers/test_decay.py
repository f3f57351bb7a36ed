"""Frozen decay rates give the same pixels, and whatever changes the weights is noticed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mambair.layers.attentive_scan import PromptedScan
from mambair.layers.bidirectional_mamba import BidirectionalMamba
from mambair.layers.decay import cache_decays
from mambair.layers.ss2d import SS2D

TOKENS = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], list[str]]] = {
    "SS2D": (lambda: SS2D(8, 4), lambda layer: layer(TOKENS.view(2, 2, 3, 8)), ["A_logs"]),
    "PromptedScan": (
        lambda: PromptedScan(8, 4),
        lambda layer: layer(TOKENS, torch.zeros(2, 6, 4), torch.arange(6).expand(2, -1).contiguous()),
        ["A_logs"],
    ),
    "BidirectionalMamba": (
        lambda: BidirectionalMamba(8, bimamba_type="v2"),
        lambda layer: layer(TOKENS),
        ["A_log", "A_b_log"],
    ),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def frozen(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[[], Tensor], list[str]]:
    """A frozen layer, a pass without gradient, the names of its logarithms."""
    make, run, names = request.param
    torch.manual_seed(0)
    layer = make().eval()
    with torch.no_grad():
        before = run(layer)
    cache_decays(nn.Sequential(layer))

    def run_frozen() -> Tensor:
        with torch.no_grad():
            return run(layer)

    assert torch.equal(run_frozen(), before)
    return layer, run_frozen, names


def test_rates_are_kept(frozen) -> None:
    layer, run, names = frozen
    before = run()
    for name in names:
        getattr(layer, name).data.add_(1.0)  # goes unnoticed, as documented
    assert torch.equal(run(), before)
    layer.cache_decay()
    assert not torch.equal(run(), before)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "train": lambda layer: layer.train().eval(),
    "load_state_dict": lambda layer: layer.load_state_dict(layer.state_dict()),
    "load_state_dict of the whole": lambda layer: nn.Sequential(layer).load_state_dict(
        {f"0.{key}": value for key, value in layer.state_dict().items()}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_new_weights_are_noticed(frozen, change) -> None:
    layer, run, names = frozen
    before = run()
    for name in names:
        getattr(layer, name).data.add_(1.0)
    change(layer)
    assert not torch.equal(run(), before)


def test_gradients_reach_frozen_logarithms(frozen) -> None:
    layer, _, names = frozen
    layer.zero_grad()
    run = next(run for make, run, _ in LAYERS.values() if type(make()) is type(layer))
    run(layer).sum().backward()
    assert all(getattr(layer, name).grad.abs().sum() > 0 for name in names)


def test_frozen_layers_are_copied_and_pickled(frozen) -> None:
    layer, run, _ = frozen
    run_of = next(run for make, run, _ in LAYERS.values() if type(make()) is type(layer))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        with torch.no_grad():
            assert torch.equal(run_of(twin), run())


def test_another_device(frozen) -> None:
    layer, _, names = frozen
    layer.to("meta")
    with torch.no_grad():
        assert all(layer.decay(name).device.type == "meta" for name in names)
    assert not any("frozen" in key for key in layer.state_dict())
