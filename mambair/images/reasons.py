"""Why a file gives no picture: damaged, truncated, of an unsupported kind, or too large."""

from __future__ import annotations

import re
import struct
import zlib

# what decoders raise on strange bytes
DECODING_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)
# how decoders word it
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|unimplemented|not available|unknown (?!chunk|error)", re.IGNORECASE
)
_TRUNCATED = re.compile(
    r"truncat|end of file|unexpected end|premature|not enough|too small|got \d+ bytes, expected", re.IGNORECASE
)
_OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate", re.IGNORECASE)


class TooManyPixelsError(ValueError):
    """The header promises more pixels than the caller allows."""


class UnsupportedKindError(ValueError):
    """The file may be whole, but nothing here reads its kind; the message begins with "is" and names the kind."""


class TruncatedError(ValueError):
    """The file ends before its picture does."""


class DisagreementError(ValueError):
    """Two decoders read different pixels; the message gives both readings."""


def reason_of(error: BaseException) -> str:
    """Describe a decoder's error as one of the four facts.

    Args:
        error: one of ``DECODING_FAULTS``.

    Returns:
        A predicate for the file's name: "is truncated (...)", "is damaged (...)", ...
    """
    detail = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TooManyPixelsError):
        return f"is too large: {detail}; raise the limit if you trust the file"
    if isinstance(error, UnsupportedKindError):
        return detail
    if isinstance(error, DisagreementError):
        return f"cannot be trusted: {detail}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(detail):
        return "is too large: its pixels do not fit in the memory that is free"
    if isinstance(error, (TruncatedError, EOFError)) or _TRUNCATED.search(detail):
        return f"is truncated ({detail})"
    if _UNSUPPORTED.search(detail):
        return f"is of an unsupported kind ({detail})"
    return f"is damaged ({detail})"
