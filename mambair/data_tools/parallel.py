"""One piece of work per file, in several processes: what was made, what was there already, and what failed and why."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch

from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import read_json
from mambair.system.errors import RequestError
from mambair.system.exit_codes import ENDING_SIGNALS, of_signal
from mambair.system.safe_spawn import spawning

SETTINGS_NAME = ".prepare_data.json"
# so many pieces wait at once: a data set of 100,000 files is not a queue of 100,000 results
_IN_FLIGHT = 64

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass
class WorkReport:
    """Counts of pieces made and pieces there already; failed ones with the reason."""

    made: int = 0
    there: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        return f"{self.made} made, {self.there} there already, {len(self.failed)} failed"


def results_of(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], *, workers: int = 1
) -> Iterator[tuple[Piece, Result | None, str | None]]:
    """(piece, result, None) or (piece, None, why it failed) for every piece, as they are finished.

    Args:
        function: a module's function; faults of files are what it raises as ValueError or OSError.
        pieces: its arguments.
        workers: processes; 1 works in this one, in order.
    """
    guarded = partial(_guarded, function)
    if workers <= 1:
        for piece in pieces:
            yield piece, *guarded(piece)
        return
    waiting = iter(pieces)
    # Spawned, not forked: a copy of a process whose arithmetic runs in several threads waits for threads it has not.
    with (
        spawning() as context,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool,
    ):
        running: dict[Future[Any], Piece] = {}
        try:
            for piece in waiting:
                running[pool.submit(guarded, piece)] = piece
                if len(running) >= _IN_FLIGHT:
                    yield from _finished(running, all_of_them=False)
            yield from _finished(running, all_of_them=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """One thread each, as there are many processes. A Ctrl-C is left to the parent: pieces begun are finished."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else _end_worker)
    torch.set_num_threads(1)


def _end_worker(number: int, frame: FrameType | None) -> None:
    """Unwind what is being done, so that no temporary file stays; `_guarded` then ends the process."""
    sys.exit(of_signal(number))


def _finished(running: dict[Future[Any], Piece], *, all_of_them: bool) -> Iterator[tuple[Piece, Any, str | None]]:
    for future in as_completed(list(running)):
        piece = running.pop(future)
        try:
            yield piece, *future.result()
        except BrokenProcessPool:
            raise OSError("a working process was killed, perhaps for lack of memory; use fewer --workers") from None
        if not all_of_them:
            return


def _guarded(function: Callable[[Piece], Result], piece: Piece) -> tuple[Result | None, str | None]:
    try:
        return function(piece), None
    except (ValueError, OSError, MemoryError) as error:
        return None, str(error) or type(error).__name__
    except SystemExit as ending:  # in a worker, which would otherwise go on with the next piece
        os._exit(int(ending.code or 0))


def work_through(
    function: Callable[[Piece], bool],
    pieces: Sequence[Piece],
    *,
    workers: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> WorkReport:
    """Do all pieces; ``function`` says whether it made something (True) or found it there (False)."""
    report = WorkReport()
    for piece, made, failure in results_of(function, pieces, workers=workers):
        if failure is not None:
            report.failed.append((str(getattr(piece, "source", piece)), failure))
        elif made:
            report.made += 1
        else:
            report.there += 1
        progress()
    return report


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write down how a folder is made, or compare with what is written there.

    Raises:
        RequestError: it was made in another way, or holds images and no settings.
    """
    path = folder / SETTINGS_NAME
    wanted = {key: str(value) for key, value in settings.items()}
    if path.is_file():
        try:
            found = read_json(path)
        except ValueError:
            found = {}
        different = [
            f"{key} {found.get(key, 'unknown')}, now {value}"
            for key, value in wanted.items()
            if found.get(key) != value
        ]
        if different:
            raise RequestError(
                f"{folder} was made with other settings ({'; '.join(different)}); name another folder or remove it"
            )
        return
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in os.scandir(folder)):
        raise RequestError(f"{folder} holds files that were not made by this command; name another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1, allow_nan=False) + "\n", encoding="utf-8")
