"""Lines and bars on all kinds of standard streams: nothing raises, nothing is lost that can be shown."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mambair.system.console import is_terminal, note, printable, progress_bar, say


class Bare:
    """A logger's stream: it can be written to, and nothing else."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        raise OSError(5, "Input/output error")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], Any]] = {"none": lambda: None, "bare": Bare, "closed": closed, "gone": Gone}


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_streams_of_all_kinds(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    assert not is_terminal(stream)
    say("a result")
    note("a note")
    bar = progress_bar(3)
    bar.update(2)
    note("above the bar")
    bar.close()
    if isinstance(stream, Bare):
        assert stream.text.startswith("a result\na note\n") and "2/3" in stream.text
        assert "above the bar\n" in stream.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 图.png", "plain ä 图.png"),
        ("line\nbreak\r\t.png", r"line\nbreak\r\t.png"),
        ("bad\udcff.png", r"bad\udcff.png"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("turned \u202e over", r"turned \u202e over"),
        (Path("a"), "a"),
    ],
)
def test_printable(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_an_encoding_without_the_character(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say("für 图")
    assert raw.getvalue() == rb"f\xfcr \u56fe" + os.linesep.encode()


def run(program: str, repository: Path, **options: Any) -> subprocess.Popen[bytes]:
    start = f"import sys; sys.path.insert(0, {str(repository)!r})\nfrom mambair.system.console import *\n"
    return subprocess.Popen([sys.executable, "-c", start + program], **options)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("name", ["say", "note"])
def test_a_closed_pipe_ends_quietly_with_the_exit_code(name: str, repository: Path) -> None:
    stream = "stdout" if name == "say" else "stderr"
    other = "stderr" if name == "say" else "stdout"
    program = f"for number in range(20000): {name}(str(number))\nsys.exit(7)"
    with run(program, repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pipe = getattr(process, stream)
        assert pipe.readline() == b"0\n"
        pipe.close()
        assert getattr(process, other).read() == b""
    assert process.returncode == 7


@pytest.mark.skipif(os.name != "posix", reason="descriptors")
def test_descriptors_that_were_closed_before_the_start(repository: Path, tmp_path: Path) -> None:
    program = f"say('a'); note('b'); progress_bar(2).close(); open({str(tmp_path / 'done')!r}, 'w').close()"

    def close() -> None:
        os.closerange(0, 3)

    with run(program, repository, preexec_fn=close) as process:
        pass
    assert process.returncode == 0 and (tmp_path / "done").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="terminals")
@pytest.mark.parametrize("size", [(0, 0), (0, 80), (24, 80), (1, 1)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_terminal_of_any_size_shows_progress(size: tuple[int, int], repository: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    program = "bar = progress_bar(3, unit='image'); bar.update(2); bar.refresh(); note('a note'); bar.close()"
    with run(program, repository, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0 and b"2/3" in shown and b"a note" in shown, shown
