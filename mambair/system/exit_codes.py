"""Exit codes of all commands, and the signals that end a command in order."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec

DONE = 0
SOME_FAILED = 1
USAGE_ERROR = 2  # also argparse's
EXPLANATION = (
    "exit codes: 0 done, 1 some work failed, 2 wrong usage or set-up,\n"
    "            129 / 130 / 143 ended by SIGHUP / SIGINT (Ctrl-C) / SIGTERM"
)
# Windows has no SIGHUP
ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name))

P = ParamSpec("P")


def of_signal(number: int) -> int:
    """The exit code of a process that a signal ended, as shells report it: 128 + the signal's number."""
    return 128 + number


def is_ignored(number: int) -> bool:
    """Return whether the process was told to ignore a signal, as ``nohup`` does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN


def ends_in_order(advice: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorate the function of a command: SIGHUP and SIGTERM raise KeyboardInterrupt in it, as Ctrl-C does.

    A KeyboardInterrupt that leaves the function becomes the exit code of the signal, and one line on standard error
    with the name of the signal and ``advice``. Ignored signals stay ignored. Outside of the main thread, where Python
    allows no handlers, signals do what they did before.
    """

    def decorate(command: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(command)
        def ending(*args: P.args, **kwargs: P.kwargs) -> int:
            received = [signal.SIGINT]
            with _raising(received):
                try:
                    return command(*args, **kwargs)
                except KeyboardInterrupt:
                    number = received[-1]
                    with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
                        print(f"\nended by {signal.Signals(number).name}: {advice}", file=sys.stderr, flush=True)
                    return of_signal(number)

        return ending

    return decorate


@contextlib.contextmanager
def _raising(received: list[signal.Signals]) -> Iterator[None]:
    """Raise KeyboardInterrupt at each ending signal, and append its number to ``received``."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDING_SIGNALS if not is_ignored(number)}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            # None: installed by another language's runtime, and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
