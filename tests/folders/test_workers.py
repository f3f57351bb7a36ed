"""Images side by side: each done once, shares of the cores, errors, leaving a network in its midst."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mambair.folders import workers as workers_module
from mambair.folders.workers import Lanes, lanes_of
from mambair.inference.limits import Cancelled
from mambair.inference.restorer import Restorer

PATIENCE = 30  # seconds until a test gives up


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_item_once_and_as_many_at_a_time_as_there_are_lanes(count: int) -> None:
    done, together = [], threading.Barrier(count)

    def work(item: int) -> None:
        together.wait(PATIENCE)  # passes only when all lanes are in it
        done.append(item)

    with Lanes(nn.Identity(), count) as lanes:
        lanes.run(iter(range(4 * count)), work)
    assert sorted(done) == list(range(4 * count))


@pytest.mark.parametrize(
    ("threads", "count", "at_once", "share"),
    [(4, 2, 2, 2), (6, 3, 3, 2), (6, 3, 8, 2), (3, 1, 2, 3), (1, 2, 2, 1), (5, 2, 2, 2), (4, 2, 1, 4)],
)
def test_busy_lanes_share_the_cores(
    set_threads: Callable[[int], None], threads: int, count: int, at_once: int, share: int
) -> None:
    shares, together = [], threading.Barrier(count)

    def work(item: int) -> None:
        together.wait(PATIENCE)
        lanes.take_share(at_once)
        shares.append(torch.get_num_threads())
        together.wait(PATIENCE)  # before any lane has ended

    set_threads(threads)
    with Lanes(nn.Identity(), count) as lanes:
        lanes.run(iter(range(2 * count)), work)
    assert shares == [share] * (2 * count)
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [threads] == [torch.get_num_threads()], "as before, also in threads that begin later"


@pytest.mark.parametrize("how", ["ended", "waiting"])
def test_the_cores_of_an_idle_lane_are_lent(
    set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    set_threads(4)
    monkeypatch.setattr(workers_module, "_IDLE", 0.0 if how == "waiting" else 1e9)
    last_one_done, shares = threading.Event(), []

    def items() -> Iterator[str]:
        yield "alone"
        if how == "waiting":  # as where memory has no room for a second image
            assert last_one_done.wait(PATIENCE)

    def work(item: str) -> None:
        deadline = time.monotonic() + PATIENCE
        lanes.take_share(2)
        while torch.get_num_threads() != 4 and time.monotonic() < deadline:
            lanes.take_share(2)
        shares.append(torch.get_num_threads())
        last_one_done.set()

    with Lanes(nn.Identity(), 2) as lanes:
        lanes.run(items(), work)
    assert shares == [4]


def test_a_lane_that_is_about_to_get_an_image_keeps_its_cores(
    set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_threads(4)
    monkeypatch.setattr(workers_module, "_IDLE", 1e9)
    asked, shares = threading.Event(), []

    def items() -> Iterator[str]:
        yield "first"
        assert asked.wait(PATIENCE)

    def work(item: str) -> None:
        lanes.take_share(2)
        shares.append(torch.get_num_threads())
        asked.set()

    with Lanes(nn.Identity(), 2) as lanes:
        lanes.run(items(), work)
    assert shares == [2]


class Deep(nn.Module):
    """Many modules, one after the other; says when it is in the first, and counts."""

    upscale, in_chans = 1, 3

    def __init__(self, inside: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Identity() for _ in range(500))
        self.inside, self.visited = inside, 0

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            self.inside()
            x = block(x)
            self.visited += 1
        return x


def test_a_stopped_lane_leaves_the_network_at_the_next_module() -> None:
    inside, stopped = threading.Event(), threading.Event()

    def wait_to_be_stopped() -> None:
        inside.set()
        assert stopped.wait(PATIENCE)

    net = Deep(wait_to_be_stopped)

    def work(item: int) -> None:
        if item == 0:
            with pytest.raises(Cancelled):
                net(torch.zeros(1))
            return
        assert inside.wait(PATIENCE)
        raise ZeroDivisionError(f"item {item}")

    with Lanes(net, 2) as lanes:
        with pytest.raises(ZeroDivisionError, match="item 1"):
            lanes.run(iter(range(50)), work)
        lanes.stop()
        stopped.set()
    assert net.visited == 0, "the pre-hook of the first block is the first thing after the stop"
    assert net(torch.zeros(1)) == 0 and net.visited == 500, "nothing of the lanes stays in the network"


def test_a_second_interrupt_leaves_nothing_behind(
    set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_threads(4)
    net = Deep()
    lanes = Lanes(net, 2)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lanes:
        lanes.run(iter(range(4)), lambda item: lanes.take_share(2))
        monkeypatch.setattr(lanes._pool, "shutdown", interrupted)  # while the lanes are waited for
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [4]
    assert net(torch.zeros(1)) == 0 and not any(module._forward_pre_hooks for module in net.modules())


def test_others_may_use_a_network_whose_lanes_are_stopped() -> None:
    net = Deep()
    with Lanes(net, 2) as lanes:
        lanes.stop()
        assert net(torch.zeros(1)) == 0 and net.visited == 500


def test_errors_of_the_items_are_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with Lanes(nn.Identity(), 2) as lanes, pytest.raises(OSError, match="no more"):
        lanes.run(items(), lambda item: None)


@pytest.mark.parametrize(
    ("threads", "batch", "expected"),
    [(2, None, 2), (2, 1, 1), (1, 2, 1), (16, 2, 2), (16, 8, 8), (3, 2, 1), (3, 3, 3), (6, 4, 3), (5, 4, 1)],
)
def test_as_many_lanes_as_divide_the_cores(
    set_threads: Callable[[int], None], threads: int, batch: int | None, expected: int
) -> None:
    set_threads(threads)
    assert lanes_of(Restorer(Deep(), device="cpu", batch=batch)) == expected


class Crowd(nn.Module):
    """Passes pixels on, and notes how many tiles are in it at once, in how many calls."""

    upscale, in_chans = 1, 3

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.now, self.most, self.per_call = threading.Lock(), 0, 0, set()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.now += len(x)
            self.most = max(self.most, self.now)
            self.per_call |= {len(x)} if x.shape[-1] == 16 else set()  # memory is measured with another size
        time.sleep(0.002)  # long enough that others come in where they may
        with self.lock:
            self.now -= len(x)
        return x + 0


@pytest.mark.parametrize(
    ("batch", "side_by_side", "per_call"), [(2, 1, {2}), (2, 2, {1}), (4, 2, {2}), (1, 2, {1}), (5, 2, {2})]
)
def test_threads_share_the_batch(batch: int, side_by_side: int, per_call: set[int]) -> None:
    net = Crowd()
    restorer = Restorer(net, device="cpu", tile=16, overlap=0, batch=batch)
    image = np.random.default_rng(0).integers(0, 256, (16, 16 * 20, 3), dtype=np.uint8)
    results = []

    def restore() -> None:
        strips = [strip for _, strip in restorer.attempts(image, side_by_side=side_by_side)]
        results.append(np.concatenate(strips))

    threads = [threading.Thread(target=restore) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(result, image) for result in results)
    assert net.most <= batch and net.per_call == per_call
