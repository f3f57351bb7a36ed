"""Lower precisions watched, and the eight views of a self-ensemble."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mambair
from mambair.inference.restorer import Restorer, TileStats
from mambair.weights.packaged import default_weights

LOWER = [torch.bfloat16, torch.float16]


class Fragile(nn.Module):
    """Gives pixels back, except under autocast, where those of bright tiles are ``broken``; counts float32 tiles."""

    in_chans, upscale = 3, 1

    def __init__(self, broken: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.broken, self.in_float32 = broken, 0

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            self.in_float32 += x.shape[0]
            return x.clone()
        bright = x.mean(dim=(1, 2, 3), keepdim=True) > 0.5
        return torch.where(bright, self.broken(x), x).to(torch.get_autocast_dtype("cpu"))


BROKEN = {
    "black": torch.zeros_like,
    "negative": lambda x: x - 5,
    "nan": lambda x: x * float("nan"),
    "one-infinity": lambda x: torch.where(x == x.amax(), torch.inf, x),
}


@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("batch", [1, 3])
def test_black_and_non_finite_tiles_are_redone_in_float32(
    broken: Callable[[Tensor], Tensor], dtype: torch.dtype, batch: int
) -> None:
    image = np.full((16, 90, 3), 40, np.uint8)
    image[:, 60:] = np.random.default_rng(0).integers(200, 255, (16, 30, 3))
    net, stats = Fragile(broken), TileStats()
    restored = Restorer(net, device="cpu", tile=32, overlap=0, dtype=dtype, batch=batch)(image, stats=stats)
    assert (stats.tiles, stats.redone) == (3, 1)
    assert net.in_float32 - (batch > 1) == 1, "besides the one that memory is measured with"
    assert np.array_equal(restored[:, 60:], image[:, 60:]), "float32 all through"
    assert np.abs(restored[:, :60].astype(int) - 40).max() <= 1


def test_a_dark_picture_may_stay_black() -> None:
    net, stats = Fragile(torch.zeros_like), TileStats()
    Restorer(net, device="cpu", dtype=torch.bfloat16)(np.full((8, 8), 2, np.uint8), stats=stats)
    assert stats.redone == 0


@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize(("task", "degree"), [("sr", 4), ("denoise", 25)])
def test_lower_precisions_stay_close_on_real_weights(task: str, degree: int, dtype: torch.dtype) -> None:
    path = default_weights(task, degree)
    image = (np.add.outer(np.arange(24), np.arange(20)) * 5).astype(np.uint8)
    exact = Restorer.from_checkpoint(path, device="cpu")(image).astype(int)
    stats = TileStats()
    close = Restorer.from_checkpoint(path, device="cpu", dtype=dtype)(image, stats=stats).astype(int)
    assert stats.redone == 0
    # bfloat16 has 8 bits of precision, of which the convolutions lose some
    assert 0 < np.abs(exact - close).max() <= (6 if dtype == torch.bfloat16 else 2)


def test_the_scan_keeps_float32_states_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator gets float32 parameters, and what it sums over a thousand tokens is not rounded to 8 bits."""
    from mambair.ops import ss2d_scan

    torch.manual_seed(0)
    x, projection = torch.rand(1, 4, 250, 8), torch.rand(1, 4, 250, 4, 2 + 2 * 4)
    parts = (torch.rand(4, 8, 2) * 0.1, torch.full((4, 8), -4.0), -torch.rand(4, 8, 4) * 0.01, torch.ones(4, 8))
    exact = ss2d_scan(x.bfloat16().float(), projection.bfloat16().float(), *parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = ss2d_scan(x.bfloat16(), projection.bfloat16(), *parts)
    # only the result is rounded to bfloat16: half a unit in the last of 8 bits
    torch.testing.assert_close(rounded.float(), exact, rtol=2**-8, atol=1e-6)


class Uneven(nn.Module):
    """Shifts right and doubles each pixel: it treats each direction differently."""

    in_chans, upscale = 1, 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, dims=-1).repeat_interleave(2, -2).repeat_interleave(2, -1)


@pytest.mark.parametrize("tile", [0, 40])
def test_a_self_ensemble_is_the_mean_over_eight_views(tile: int) -> None:
    x = torch.rand(1, 1, 24, 36)
    net = Uneven()
    expected = torch.zeros(1, 1, 48, 72)
    for transpose in (False, True):
        for vertical in (False, True):
            for horizontal in (False, True):
                axes = [axis for axis, on in ((-2, vertical), (-1, horizontal)) if on]
                view = x.transpose(-1, -2) if transpose else x
                back = net(view.flip(axes)).flip(axes)
                expected += (back.transpose(-1, -2) if transpose else back) / 8
    restored = Restorer(net, device="cpu", tile=tile, self_ensemble=True)(x)
    torch.testing.assert_close(restored, expected)


def test_a_self_ensemble_of_a_real_network_turns_with_the_image() -> None:
    restorer = mambair.Restorer.from_checkpoint(default_weights("denoise", 25), device="cpu", self_ensemble=True)
    image = torch.rand(3, 12, 17)
    torch.testing.assert_close(restorer(image.transpose(1, 2)), restorer(image).transpose(1, 2), rtol=0, atol=1e-5)
