"""Between the threads of a pipeline: strips handed over a few at a time, and bounds on what they hold at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_WAITING = 2
_PATIENCE = 0.1  # seconds between looks at whether the other side is still there
_END = object()


class AbandonedError(Exception):
    """The other side of a hand-over gave up."""


class HandOver(Generic[T]):
    """One thread puts, another iterates; either may give up, which the other learns as ``AbandonedError``."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | object] = queue.Queue(_WAITING)
        self._abandoned = threading.Event()

    def put(self, item: T) -> None:
        """Wait for room and hand over.

        Raises:
            AbandonedError: nobody will take it.
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
            AbandonedError: the rest will not come.
        """
        while True:
            try:
                item = self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                if self._abandoned.is_set():
                    raise AbandonedError from None
                continue
            if self._abandoned.is_set():
                raise AbandonedError
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def _put(self, item: T | object) -> None:
        while True:
            if self._abandoned.is_set():
                raise AbandonedError
            try:
                self._queue.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return


class Budget:
    """What may be in use at once, bytes or tiles; a demand above the whole budget waits until it is alone.

    Args:
        total: as many.
    """

    def __init__(self, total: int) -> None:
        self._total, self._used, self._closed = total, 0, False
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Wait until ``amount`` is there, and take it; of several threads that wait, any may be the first.

        Raises:
            AbandonedError: the budget was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._used == 0 or self._used + amount <= self._total)
            if self._closed:
                raise AbandonedError
            self._used += amount

    def resize(self, total: int) -> None:
        """From now on this much may be in use at once; what is in use already stays so."""
        with self._changed:
            self._total = total
            self._changed.notify_all()

    def give(self, amount: int) -> None:
        """Put back what was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
