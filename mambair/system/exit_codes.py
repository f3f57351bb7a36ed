"""Exit codes of all commands, and how a command ends in order: signals, streams that take no more."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

from mambair.system.console import note, safe_streams

DONE = 0
SOME_FAILED = 1
USAGE_ERROR = 2  # also argparse's
EXPLANATION = (
    "exit codes: 0 done, 1 some work failed, 2 wrong usage or set-up,\n"
    "            129 / 130 / 143 ended by SIGHUP / SIGINT (Ctrl-C) / SIGTERM"
)
# Windows has no SIGHUP
ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name))
_MOMENT, _LONGEST_LOADING = 0.05, 10.0  # seconds

P = ParamSpec("P")


def of_signal(number: int) -> int:
    """The exit code of a process that a signal ended, as shells report it: 128 + the signal's number."""
    return 128 + number


def is_ignored(number: int) -> bool:
    """Return whether the process was told to ignore a signal, as ``nohup`` does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN


def leave(code: int) -> NoReturn:
    """End the process; a Ctrl-C that comes now ends it at once, and not in tracebacks of whatever else is closed."""
    if not is_ignored(signal.SIGINT):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def ends_in_order(advice: str = "") -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorate the function of a command, which may call others that are decorated.

    In it the standard streams are those of `safe_streams`: they may be missing, bare, closed, or a pipe that nobody
    reads any more. A full disk that takes no output makes the exit code 1.

    SIGHUP and SIGTERM raise KeyboardInterrupt in it, as Ctrl-C does. A KeyboardInterrupt that leaves the function
    becomes the exit code of the signal, and one line on standard error with the name of the signal and ``advice``.
    While a module is imported it is raised at the end of that, or after ten seconds: libraries that are interrupted
    while they load end in errors of any kind. One that came so late that the command ends before counts all the same.
    Ignored signals stay ignored. Outside of the main thread, where Python
    allows no handlers, signals do what they did before.
    """

    def decorate(command: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(command)
        def ending(*args: P.args, **kwargs: P.kwargs) -> int:
            with safe_streams() as output, _Interrupts() as interrupts:
                try:
                    code = command(*args, **kwargs)
                    if code == DONE:
                        interrupts.raise_waiting()
                except SystemExit as leaving:  # of --help, which may have met a full disk
                    if leaving.code or output.full is None:
                        raise
                    code = DONE
                except KeyboardInterrupt:
                    number = interrupts.latest
                    note(f"\nended by {signal.Signals(number).name}{': ' if advice else ''}{advice}")
                    return of_signal(number)
                if code == DONE and output.full is not None:
                    note(f"standard output could not be written: {output.full.strerror}")
                    return SOME_FAILED
                return code

        return ending

    return decorate


class _Interrupts:
    """While entered, each ending signal raises KeyboardInterrupt, at the end of imports where there are any.

    Attributes:
        latest: the number of the newest signal.
    """

    def __init__(self) -> None:
        self.latest: int = signal.SIGINT
        self._before: dict[int, object] = {}
        self._waiting = False
        self._last_moment = float("inf")
        self._sending = threading.Lock()  # held while a timer sends, so that none sends after the end

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in ENDING_SIGNALS if not is_ignored(number)}
        for number in self._before:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        with self._sending:
            self._waiting = False
        for number, handler in self._before.items():
            # None: installed by another language's runtime, and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def raise_waiting(self) -> None:
        """Raise KeyboardInterrupt if a signal came during an import and was not acted upon since."""
        if self._waiting:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.latest = number
        self._last_moment = min(self._last_moment, time.monotonic() + _LONGEST_LOADING)
        if _is_importing(frame) and time.monotonic() < self._last_moment:
            self._waiting = True
            again = threading.Timer(_MOMENT, self._send_again, [number])
            again.daemon = True
            again.start()
            return
        self._waiting = False
        raise KeyboardInterrupt

    def _send_again(self, number: int) -> None:
        """Send a signal that waits to the main thread, and wake it where it waits itself."""
        with self._sending:
            if not self._waiting:
                return
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            else:
                signal.raise_signal(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether the code of a frame runs inside of an import that the command itself began."""
    while frame is not None and frame.f_globals is not globals():
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
