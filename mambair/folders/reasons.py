"""Errors that end a file's way through the pipeline, in one line each, and those that end the run."""

from __future__ import annotations

import errno
from pathlib import Path

from mambair.inference.memory import is_out_of_memory
from mambair.system.console import printable
from mambair.system.jsonl import AppendError

_NO_MORE = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS") if hasattr(errno, name)}


def ends_the_run(error: Exception) -> bool:
    """Return whether an error says that nothing more can be written: a full disk, a manifest that takes no lines."""
    return isinstance(error, OSError) and (isinstance(error, AppendError) or error.errno in _NO_MORE)


def reason_of(error: Exception, source: Path | None = None) -> str:
    """The error in one line, without repeating the file's name or losing what kind of error it was."""
    text = " ".join(str(error).removeprefix(f"{source}: ").split())
    if is_out_of_memory(error):
        return printable(f"out of memory, even in the smallest tiles ({text or type(error).__name__})")
    known = isinstance(error, (ValueError, ArithmeticError, OSError))
    return printable(text) if known and text else printable(f"{type(error).__name__}: {text}")
