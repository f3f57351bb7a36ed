"""SIGTERM and SIGINT during training: remembered, and acted upon when the iteration is finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class GracefulShutdown:
    """While entered, the first SIGTERM or SIGINT only sets `signal_number`; a second SIGINT stops at once.

    Outside of the main thread, where Python allows no handlers, nothing is installed.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.signal_number = number

    @property
    def requested(self) -> bool:
        """Whether the training should stop."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process ended by a signal: 128 + its number (143, 130)."""
        return 0 if self.signal_number is None else 128 + self.signal_number
