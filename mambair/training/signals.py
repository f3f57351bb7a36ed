"""SIGHUP, SIGINT and SIGTERM during training: remembered, and acted upon when the iteration is finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from mambair.system.exit_codes import DONE, ENDING_SIGNALS, is_ignored, of_signal


class GracefulShutdown:
    """While entered, the first ending signal only sets `signal_number`; a second SIGINT stops at once.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored. Outside of the main thread, where Python allows no
    handlers, nothing is installed.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> GracefulShutdown:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._remember)
                for number in ENDING_SIGNALS
                if number == signal.SIGINT or not is_ignored(number)
            }
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
    def signal_name(self) -> str:
        """SIGHUP, SIGINT or SIGTERM, or nothing where no signal came."""
        return "" if self.signal_number is None else signal.Signals(self.signal_number).name

    @property
    def exit_code(self) -> int:
        """129, 130 or 143, or 0 where no signal came."""
        return DONE if self.signal_number is None else of_signal(self.signal_number)
