"""Short memory: tiles lowered before it runs out, and halved when it does; real kinds of errors, made-up shortages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mambair.inference import restorer as restorer_module
from mambair.inference.memory import bytes_on_the_way, free_bytes, is_out_of_memory, peak_bytes
from mambair.inference.restorer import Restorer, TileStats


def cuda_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def allocator_error() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")


SHORTAGES = {"cuda": cuda_error, "allocator": allocator_error, "python": MemoryError}


class Hungry(nn.Module):
    """Repeats pixels; fails on more than ``limit`` input pixels at once."""

    in_chans, upscale = 3, 2

    def __init__(self, limit: int, shortage: Callable[[], Exception] = MemoryError, spare: int = 0) -> None:
        super().__init__()
        self.limit, self.shortage, self.spare = limit, shortage, spare
        self.refused: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] > self.limit:
            self.spare -= 1
            if self.spare < 0:
                self.refused.append(tuple(x.shape))
                raise self.shortage()
        return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def repeated(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shortage", SHORTAGES.values(), ids=SHORTAGES)
def test_tiles_are_halved_until_they_fit(shortage: Callable[[], Exception], caplog: pytest.LogCaptureFixture) -> None:
    restorer = Restorer(Hungry(70 * 70, shortage), device="cpu", tile=256)
    stats, image = TileStats(), noise(300, 400)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(restorer(image, stats=stats), repeated(image))
    assert (restorer.tile, restorer.overlap) == (64, 16) == (stats.tile, stats.overlap)
    assert stats.tiles == restorer.tiles_of(300, 400)
    assert "memory ran out: going on with tiles of 128 instead of 256" in caplog.text
    assert restorer.asked.tile == 256


def test_a_batch_is_halved_before_a_tile(caplog: pytest.LogCaptureFixture) -> None:
    net = Hungry(2 * 64 * 64)
    restorer = Restorer(net, device="cpu", tile=64, batch=8)
    image = noise(64, 900)
    assert np.array_equal(restorer(image), repeated(image))
    assert (restorer.tile, restorer.batch) == (64, 2), "pixels do not depend on the batch"
    assert [shape[0] for shape in net.refused] == [8, 4]
    assert "memory ran out: going on with 2 tiles at a time instead of 4" in caplog.text


def test_a_whole_image_becomes_tiles() -> None:
    restorer = Restorer(Hungry(100 * 100), device="cpu", tile=0)
    image = noise(150, 230)
    assert np.array_equal(restorer(image), repeated(image))
    assert restorer.tile == 115 and restorer.overlap == 28


def test_smaller_tiles_are_divisible_too() -> None:
    net = Hungry(100 * 100)
    net.tile_multiple = 16  # type: ignore[assignment]
    restorer = Restorer(net, device="cpu", tile=176)
    restorer(noise(200, 200))
    assert restorer.tile == 80


@pytest.mark.parametrize("shortage", SHORTAGES.values(), ids=SHORTAGES)
def test_below_the_smallest_tile_the_error_is_passed_on(shortage: Callable[[], Exception]) -> None:
    restorer = Restorer(Hungry(32 * 32, shortage), device="cpu", tile=160)
    with pytest.raises(type(shortage())):
        restorer(noise(200, 200))
    assert restorer.tile == 40, "its half would be below 32"


def test_other_errors_are_not_taken_for_it() -> None:
    restorer = Restorer(Hungry(10, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied")), device="cpu")
    with pytest.raises(RuntimeError, match="shapes"):
        restorer(noise(64, 64))
    assert restorer.tile == 256


def test_strips_that_are_out_are_not_given_again() -> None:
    # two rows of tiles are done when memory runs out
    restorer = Restorer(Hungry(50 * 50, spare=4), device="cpu", tile=64)
    image = noise(300, 100)
    strips = list(restorer.strips(image))
    assert np.array_equal(np.concatenate(strips), repeated(image))
    assert restorer.tile == 32


def test_threads_lower_it_once() -> None:
    restorer = Restorer(Hungry(40 * 40), device="cpu", tile=64)
    image, results = noise(200, 200), []
    threads = [threading.Thread(target=lambda: results.append(restorer(image))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert restorer.tile == 32
    assert len(results) == 4 and all(np.array_equal(result, repeated(image)) for result in results)


class Widening(nn.Module):
    """Takes 100 float32 channels per pixel: 400 bytes, and 12 for the result."""

    in_chans, upscale = 3, 1

    def forward(self, x: Tensor) -> Tensor:
        wide = x[:, :1].repeat(1, 100, 1, 1)
        return x + wide.mean(dim=1, keepdim=True)


def test_the_need_of_a_network_is_measured() -> None:
    x = torch.zeros(1, 3, 32, 32)
    per_pixel = peak_bytes(Widening(), x) / 32**2
    assert 400 <= per_pixel <= 424  # the wide tensor, its mean and the result


@pytest.mark.parametrize(("free", "tile"), [(2**30, 256), (20_000_000, 128), (1000, 32)])
def test_less_memory_lowers_the_tile_beforehand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, tile: int
) -> None:
    monkeypatch.setattr(restorer_module, "free_bytes", lambda device: free)
    restorer = Restorer(Widening(), device="cpu")
    restorer(noise(300, 300))
    assert restorer.tile == tile
    assert ("GiB are free" in caplog.text) == (tile < 256)


@pytest.mark.parametrize(("side_by_side", "batch", "tile"), [(1, 2, 256), (2, 1, 256), (3, 1, 256)])
def test_images_side_by_side_need_their_memory_at_once(
    monkeypatch: pytest.MonkeyPatch, side_by_side: int, batch: int, tile: int
) -> None:
    # enough for one such image, and not for two
    monkeypatch.setattr(restorer_module, "free_bytes", lambda device: 60_000_000)
    restorer, image = Restorer(Widening(), device="cpu"), noise(200, 250)
    assert sum(len(strip) for _, strip in restorer.attempts(image, side_by_side=side_by_side)) == 200
    assert (restorer.batch, restorer.tile) == (batch, tile), "one after the other is no reason for smaller tiles"


@pytest.mark.parametrize(
    ("tile", "collected", "expected"),
    [
        (256, 0, 20 * 600 * 1000 + 36 * 1000 * 256 * 16),
        (256, 600 * 1000 * 16, 20 * 600 * 1000 + 36 * 1000 * 256 * 16 + 4 * 600 * 1000 * 16),
        (0, 0, 20 * 600 * 1000 + 36 * 1000 * 600 * 16),
        (1024, 0, 20 * 600 * 1000 + 36 * 1000 * 600 * 16),
    ],
)
def test_memory_of_an_image_on_its_way(tile: int, collected: int, expected: int) -> None:
    assert bytes_on_the_way(600, 1000, scale=4, tile=tile, collected=collected) == expected


def test_a_small_image_needs_no_lowering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer_module, "free_bytes", lambda device: 2_000_000)
    restorer = Restorer(Widening(), device="cpu")
    restorer(noise(40, 50))
    assert restorer.tile == 256


def test_a_system_that_does_not_say_how_much_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer_module, "free_bytes", lambda device: None)
    restorer = Restorer(Widening(), device="cpu")
    restorer(noise(300, 300))
    assert restorer.tile == 256


def test_free_memory_of_this_machine_is_plausible() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
    assert free_bytes(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (cuda_error(), True),
        (allocator_error(), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
    ids=["cuda", "allocator", "python", "cublas", "runtime", "value"],
)
def test_which_errors_mean_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
