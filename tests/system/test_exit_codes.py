"""Signals that end a command in order, and the exit codes they become."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mambair.system.exit_codes import ENDING_SIGNALS, ends_in_order, of_signal

posix = pytest.mark.skipif(os.name != "posix", reason="sends signals to itself")


@ends_in_order("give it again")
def receive(number: int) -> int:
    """Receive a signal, and tidy up."""
    try:
        os.kill(os.getpid(), number)
        return 7
    finally:
        TIDIED.append(number)


TIDIED: list[int] = []


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 129), ("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_unwinds_and_is_the_exit_code(name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    before = [signal.getsignal(each) for each in ENDING_SIGNALS]
    # where the tests run in the background of a script, SIGINT is ignored
    replaced = signal.signal(number, signal.SIG_DFL)
    TIDIED.clear()
    try:
        assert receive(number) == code == of_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, replaced)
    assert [number] == TIDIED
    assert capsys.readouterr().err == f"\nended by {name}: give it again\n"
    assert [signal.getsignal(each) for each in ENDING_SIGNALS] == before


@posix
def test_an_ignored_signal_stays_ignored() -> None:
    replaced = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert receive(signal.SIGHUP) == 7
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, replaced)


def test_a_keyboard_interrupt_without_a_signal_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    @ends_in_order("never mind")
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert interrupted() == 130
    assert capsys.readouterr().err == "\nended by SIGINT: never mind\n"


def test_in_another_thread_nothing_is_installed() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(ends_in_order("")(lambda: 5)()))
    thread.start()
    thread.join()
    assert results == [5]
