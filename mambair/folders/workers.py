"""Images through one network side by side: each in a thread of its own, with an equal share of the cores."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import nn

from mambair.inference.limits import Cancelled
from mambair.inference.restorer import Restorer

T = TypeVar("T")
_PATIENCE = 0.1  # seconds between looks at a pending Ctrl-C, which some systems show to no waiting thread
_IDLE = 1.0  # seconds without an image after which a lane's cores are lent to the others
_FOR_EVER = float("-inf")
_NICENESS = 19


class Lanes:
    """Threads that take one image after the other through a network.

    Two images on half of a processor's cores each are done sooner than one after the other on all of them: threads
    need not wait for one another after each operator, and while one image is blended, the next is computed.

    Args:
        net: what the images go through; a lane that is stopped leaves it at the next of its modules.
        count: how many threads, at least 1; each lets torch use that part of the threads which this one has.
    """

    def __init__(self, net: nn.Module, count: int) -> None:
        self.count = count
        self._net = net
        self._all_threads = torch.get_num_threads()
        self._taking = threading.Lock()
        self._waiting_since: dict[int, float] = {}  # of threads that have no image
        self._stopping = threading.Event()
        self._this = threading.local()  # is_lane: whether a thread is one of these
        self._pool = ThreadPoolExecutor(count, "lane")
        self._hooks: list[Any] = []

    def __enter__(self) -> Lanes:
        self._hooks = [module.register_forward_pre_hook(self._leave_if_stopped) for module in self._net.modules()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
            self._pool.shutdown()
        finally:  # also where a second Ctrl-C ends the waiting
            for hook in self._hooks:
                hook.remove()
            torch.set_num_threads(self._all_threads)  # for threads that begin later

    def run(self, items: Iterator[T], work: Callable[[T], None]) -> None:
        """Do ``work`` on each of ``items``, which are taken by one thread at a time; to be called once.

        Raises:
            Whatever ``work`` or ``items`` raise, while the other lanes go on: ``stop`` them.
        """
        pending = {self._pool.submit(self._lane, items, work) for _ in range(self.count)}
        while pending:
            done, pending = wait(pending, timeout=_PATIENCE, return_when=FIRST_EXCEPTION)
            for lane in done:
                lane.result()

    def stop(self) -> None:
        """Let each lane end at the next module, tile or image; to be called from any thread."""
        self._stopping.set()

    def take_share(self, at_once: int) -> None:
        """Give this thread its part of the cores, which is larger while others have nothing to do.

        To be called in a lane, before and between tiles.

        Args:
            at_once: how many calls of the network may run at once; those of further lanes wait for one another.

        Raises:
            Cancelled: the lanes were stopped.
        """
        self._leave_if_stopped()
        latest = time.monotonic() - _IDLE
        busy = self.count - sum(since < latest for since in tuple(self._waiting_since.values()))
        torch.set_num_threads(max(1, self._all_threads // max(1, min(busy, at_once))))

    def _lane(self, items: Iterator[T], work: Callable[[T], None]) -> None:
        lane, self._this.is_lane = threading.get_ident(), True
        while not self._stopping.is_set():
            self._waiting_since[lane] = time.monotonic()
            with self._taking:
                try:
                    item = next(items)
                except StopIteration:
                    break
            del self._waiting_since[lane]
            work(item)
        self._waiting_since[lane] = _FOR_EVER

    def _leave_if_stopped(self, *_: object) -> None:
        # others may use the network, too
        if self._stopping.is_set() and getattr(self._this, "is_lane", False):
            raise Cancelled


def lanes_of(restorer: Restorer) -> int:
    """How many images to restore side by side: on a CPU as many as share its cores equally and a batch has tiles."""
    if restorer.device.type != "cpu":
        return 1
    threads = torch.get_num_threads()
    return max(lanes for lanes in range(1, restorer.batch + 1) if threads % lanes == 0)


def give_way() -> None:
    """Let the network's threads go before this one, which may take its time: each of them waits for the slowest."""
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
