"""Lines and progress bars for people, on whatever the standard streams are: a terminal, a log, a closed pipe, nothing.

Nothing here raises: what cannot be shown is not shown, and the work goes on. `safe_streams` gives all that a command
prints, by whatever means, the same.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_ROWS = 24  # tqdm shows nothing where it believes in no rows
_IN_A_LOG = 10.0  # seconds between two states of a bar: a log file needs no ten lines a second
_ON_A_TERMINAL = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def printable(text: object) -> str:
    """``text`` on one line that any terminal takes: control characters and broken bytes are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(text))


def printable_lines(text: str) -> str:
    """`printable` for each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


class PrintableFormatter(logging.Formatter):
    """Log lines without control characters; further lines of a message are indented, so none passes for a record."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n  ".join(map(printable, super().format(record).split("\n")))


def log_to_stderr(level: int) -> None:
    """Send log messages of that level and above to standard error, unless the program has its own handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def say(line: str) -> None:
    """Write a line to standard output.

    A missing or closed stream, and a pipe that nobody reads any more, take nothing; characters beyond the stream's
    encoding are escaped, and so are control characters but line feeds: pass what others named through `printable`.
    """
    Stream(sys.stdout).write(f"{printable_lines(line)}\n")


def note(line: str) -> None:
    """Write a line to standard error as `say` does, above the bars that are there."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(printable_lines(line), file=Stream(sys.stderr))
    else:
        Stream(sys.stderr).write(f"{printable_lines(line)}\n")


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal; one without ``isatty``, or None, is not."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):  # missing, closed, gone
        return False


@contextlib.contextmanager
def safe_streams() -> Iterator[Stream]:
    """Let ``sys.stdout`` and ``sys.stderr`` be a `Stream` each, and reserve the standard descriptors.

    Yields:
        The one of standard output.
    """
    reserve_standard_descriptors()
    output = Stream(sys.stdout)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(Stream(sys.stderr)):
        yield output


class Stream:
    """A standard stream whose ``write`` and ``flush`` never raise.

    Args:
        stream: any object with ``write``, or None. A `Stream` is taken for what is in it.

    Attributes:
        full: the error of a full disk that lost some of the output, or None.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream._stream if isinstance(stream, Stream) else stream
        self.full: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_stream" not in vars(self):  # asked by copy and pickle
            raise AttributeError(name)
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self._stream is other._stream  # tqdm compares, to know its bars

    __hash__ = None  # type: ignore[assignment]

    @property
    def encoding(self) -> str:
        """That of the stream; ASCII where it has none."""
        return getattr(self._stream, "encoding", None) or "ascii"

    def write(self, text: str) -> int:
        """Write and flush, as far as the stream can; return the number of characters that were given."""
        with self._unharmed():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        self.flush()
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream can."""
        with self._unharmed():
            self._stream.flush()

    @contextlib.contextmanager
    def _unharmed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                self.full = error
            if not isinstance(error, BlockingIOError):
                _silence(self._stream)
        except (AttributeError, ValueError):  # no stream, a closed one
            pass

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return is_terminal(self._stream)


def progress_bar(
    total: float | None,
    *,
    description: str = "",
    unit: str = "it",
    unit_scale: bool = False,
    initial: float = 0,
    bar_format: str | None = None,
    quiet: bool = False,
) -> tqdm[Any]:
    """A bar on standard error; in a log it shows a state every ten seconds. Lines above it: `note`.

    Args:
        total: of what is counted, None if unknown.
        description, unit, unit_scale, initial, bar_format: as in tqdm.
        quiet: show nothing.
    """
    from tqdm import tqdm

    stream = Stream(sys.stderr)
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit_scale,
        initial=initial,  # type: ignore[arg-type]
        bar_format=bar_format,
        disable=quiet,
        file=stream,
        ncols=_columns(sys.stderr),
        nrows=_ROWS,
        mininterval=_ON_A_TERMINAL if stream.isatty() else _IN_A_LOG,
    )


def reserve_standard_descriptors() -> None:
    """Open the null device where standard input, output or error were closed before the process began.

    Else the next file that is opened takes that number, and what a library writes to "standard error" goes into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _columns(stream: Any) -> int | None:
    """The width of a terminal, less one; None if it is none, or says that it has no columns."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, ValueError, OSError):
        return None
    return columns - 1 if columns > 1 else None


def _silence(stream: Any) -> None:
    """Lead a stream that takes nothing any more to nowhere, so that Python's last flush meets no error."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
