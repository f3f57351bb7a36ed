"""The error of a request that cannot be carried out; errors of files stand beside what reads and writes these."""

from __future__ import annotations


class RequestError(ValueError):
    """A name, a setting or an environment that cannot be used; the message says what to change."""
