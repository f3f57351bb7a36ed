"""Signals that end a command in order, and the exit codes they become."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mambair.system import exit_codes
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


TIDIED: list[object] = []


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


@posix
def test_an_import_is_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.2)\nfrom {} import TIDIED\n"
    (tmp_path / "interrupted_import.py").write_text(f"{text.format(__name__)}TIDIED.append('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    TIDIED.clear()

    @ends_in_order()
    def load() -> int:
        importlib.import_module("interrupted_import")
        time.sleep(30)
        return 0

    assert load() == 143
    assert TIDIED == ["imported"]


@posix
def test_a_signal_that_waited_until_the_end_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short_import.py").write_text("import signal\nfor _ in range(2): signal.raise_signal(signal.SIGTERM)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(exit_codes, "_MOMENT", 0.01)
    assert ends_in_order()(lambda: 0 * len(importlib.import_module("short_import").__name__))() == 143
    assert capsys.readouterr().err == "\nended by SIGTERM\n"
    time.sleep(0.1)  # signals sent later would end this process


@posix
def test_an_import_without_an_end_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_import.py").write_text("import signal, time\nsignal.raise_signal(2)\ntime.sleep(30)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(exit_codes, "_LONGEST_LOADING", 0.1)
    replaced = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ends_in_order()(lambda: importlib.import_module("endless_import").code)() == 130
    finally:
        signal.signal(signal.SIGINT, replaced)


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


LEAVING = """
import signal, sys, threading, time
from mambair.system.exit_codes import leave
signal.signal(signal.SIGINT, signal.{handler})  # as at the start of the interpreter, or of a background job
threading.Thread(target=lambda: time.sleep({seconds})).start()  # is waited for when the interpreter ends
threading.Thread(target=lambda: (time.sleep(0.2), print(flush=True)), daemon=True).start()
leave(3)
"""


@posix
@pytest.mark.parametrize(
    ("handler", "seconds", "code"), [("default_int_handler", 60, -signal.SIGINT), ("SIG_IGN", 2, 3)]
)
def test_an_interrupt_after_the_end_leaves_no_traceback(
    handler: str, seconds: int, code: int, repository: Path
) -> None:
    program = [sys.executable, "-c", LEAVING.format(handler=handler, seconds=seconds)]
    with subprocess.Popen(program, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=50)[1] == b""
    assert process.returncode == code
