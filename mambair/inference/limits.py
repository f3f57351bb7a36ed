"""Limits on what several threads use at once."""

from __future__ import annotations

import threading


class Cancelled(Exception):
    """The other side of a hand-over gave up."""


class ResourceLimiter:
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
            Cancelled: the budget was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._used == 0 or self._used + amount <= self._total)
            if self._closed:
                raise Cancelled
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
