"""Layers give the same on the fused path as by their own torch code, and take it only where that is so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from mambair.layers import SS2D, VSSBlock, fused
from mambair.ops import native

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "light": lambda: VSSBlock(60, d_state=10, expand=1.2, is_light_sr=True),
    "legacy": lambda: VSSBlock(24, d_state=4, expand=1.5, is_light_sr=True, light_cab="legacy"),
    "depthwise": lambda: VSSBlock(24, d_state=4, is_light_sr=True, light_cab="depthwise"),
    "classic": lambda: VSSBlock(36, norm_layer=nn.LayerNorm),
    "scan": lambda: SS2D(20, d_state=3),
    "scan without gate": lambda: SS2D(20, d_state=3, gate=None, conv_bias=False, bias=True),
    "channels first": lambda: SS2D(20, d_state=3, channel_first=True),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """The answers of ``can_fuse and runs`` of scan layers, in order; skips where the fused path cannot run."""
    if not native.load() or native.isa() == "portable":
        pytest.skip("the fused path needs the native library and AVX2")
    taken: list[bool] = []
    own = SS2D.fused
    monkeypatch.setattr(SS2D, "fused", lambda self, *a, **k: taken.append(True) or own(self, *a, **k))
    yield taken


def randomized(layer: nn.Module) -> nn.Module:
    """With parameters that are no ones and zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return layer.eval()


def both(layer: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        found = layer(x)
        monkeypatch.setenv("MAMBAIR_FUSED", "0")
        expected = layer(x)
    monkeypatch.delenv("MAMBAIR_FUSED")
    return found, expected


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 16, 16), (2, 7, 35)], ids=str)
def test_same_result(name, size, calls, monkeypatch) -> None:
    layer = randomized(LAYERS[name]())
    batch, height, width = size
    channels = 20 if "scan" in name or "first" in name else next(layer.parameters()).shape[0]
    x = torch.randn(batch, channels, height, width) if "first" in name else torch.randn(batch, height, width, channels)
    found, expected = both(layer, x, monkeypatch)
    assert calls == [True]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def hooked(layer: VSSBlock) -> None:
    layer.self_attention.in_proj.register_forward_hook(lambda *_: None)


def parametrized(layer: VSSBlock) -> None:
    nn.utils.parametrizations.weight_norm(layer.self_attention.out_proj)


def replaced(layer: VSSBlock) -> None:
    layer.self_attention.forward = lambda x: x  # pyright: ignore[reportAttributeAccessIssue]


def training(layer: VSSBlock) -> None:
    layer.train()


def without_norm_weights(layer: VSSBlock) -> None:
    layer.ln_1 = nn.LayerNorm(24, elementwise_affine=False).eval()


@pytest.mark.parametrize("change", [hooked, parametrized, replaced, training, without_norm_weights])
def test_changed_layers_run_their_own_code(change, calls) -> None:
    layer = VSSBlock(24, d_state=4).eval()
    x = torch.randn(1, 4, 5, 24)
    with torch.no_grad():
        assert fused.runs(layer, x)
        change(layer)
        assert not fused.runs(layer, x)
        layer(x)
    assert len(calls) == (change is without_norm_weights)  # its scan layer is as it was, and runs fused on its own


def test_gradients_take_the_torch_path(calls) -> None:
    layer = VSSBlock(24, d_state=4).eval()
    layer(torch.randn(1, 4, 5, 24)).sum().backward()
    assert calls == [] and layer.ln_1.weight.grad is not None


def test_traced_and_compiled_layers_keep_the_torch_path(calls) -> None:
    layer = VSSBlock(24, d_state=4).eval()
    x = torch.randn(1, 4, 5, 24)
    with torch.no_grad():
        program = torch.export.export(layer, (x,))
        assert "token_layers" not in str(program.graph)
        traced = torch.jit.trace(layer, (x,), check_trace=False)
        assert "token_layers" not in str(traced.inlined_graph)  # pyright: ignore[reportAttributeAccessIssue]
        torch.compile(layer, backend="eager", fullgraph=True)(x)
    assert calls == []
