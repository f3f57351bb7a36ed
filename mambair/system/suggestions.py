"""What somebody may have meant who mistyped one of a few names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """Return the end of an error message, ``; did you mean 'jpg'?``, if a known name is near, else nothing."""
    text, known = text.lower(), list(known)
    transposed = [each for each in known if sorted(each) == sorted(text)]
    near = transposed or difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
