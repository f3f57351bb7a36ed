"""Between the threads of a pipeline: strips handed over a few at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from mambair.inference.limits import Cancelled

T = TypeVar("T")
_WAITING = 2
_PATIENCE = 0.1  # seconds between looks at whether the other side is still there
_END = object()


class StripQueue(Generic[T]):
    """One thread puts, another iterates; either may give up, which the other learns as ``Cancelled``."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | object] = queue.Queue(_WAITING)
        self._abandoned = threading.Event()

    def put(self, item: T) -> None:
        """Wait for room and hand over.

        Raises:
            Cancelled: nobody will take it.
        """
        self._put(item)

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._put(_END)

    def abandon(self) -> None:
        """Give up, from either side."""
        self._abandoned.set()

    def __iter__(self) -> Iterator[T]:
        """What is put, until it is finished.

        Raises:
            Cancelled: the rest will not come.
        """
        while True:
            try:
                item = self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                if self._abandoned.is_set():
                    raise Cancelled from None
                continue
            if self._abandoned.is_set():
                raise Cancelled
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def _put(self, item: T | object) -> None:
        while True:
            if self._abandoned.is_set():
                raise Cancelled
            try:
                self._queue.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return
