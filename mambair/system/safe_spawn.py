"""New processes of Python that run no file of the working folder while they start."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.context import SpawnContext

VARIABLE = "PYTHONSAFEPATH"


@contextlib.contextmanager
def spawning() -> Iterator[SpawnContext]:
    """The "spawn" context of multiprocessing, with which processes are to be started while this is entered.

    A spawned process begins as ``python -c``, for which Python looks for modules in the working folder first: a file
    ``signal.py`` there would be run. The variable PYTHONSAFEPATH, which the processes inherit, prevents that.
    Python 3.10 does not know it.
    """
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield multiprocessing.get_context("spawn")
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
