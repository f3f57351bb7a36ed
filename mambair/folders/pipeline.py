"""A restorer over files: reading, restoring and writing overlap; each result complete or absent, each fault told."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch

from mambair.folders.before_after import comparisons_of
from mambair.folders.file_locks import Claim
from mambair.folders.finish import Finish, Finishing, cheaper_ways
from mambair.folders.item import Item
from mambair.folders.output_format import spec_of_result
from mambair.folders.plan import Job, Plan
from mambair.folders.progress import ProgressBar, Report
from mambair.folders.reasons import ends_the_run, reason_of
from mambair.folders.resume import Ledger, State
from mambair.folders.strip_queue import StripQueue
from mambair.folders.workers import Lanes, give_way, lanes_of
from mambair.images.files import MAX_PIXELS, ImageSpec, is_streamed, open_strips, read_encoded
from mambair.images.pillow_files import PARTIAL
from mambair.inference.limits import Cancelled, ResourceLimiter
from mambair.inference.memory import bytes_on_the_way, free_bytes
from mambair.inference.restorer import Restorer
from mambair.system.console import note, printable
from mambair.system.jsonl import AppendError
from mambair.system.path_gate import parts_below

__all__ = ["Report", "restore_files"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

AHEAD = 2  # images decoded before their turn
ENCODERS = min(4, os.cpu_count() or 1)
MEMORY = 2**31  # bytes of images on their way, or a quarter of what is free
_POLL = 0.2  # seconds between looks at files that other processes have claimed
_WAITING = 10.0  # seconds after which the user is told what is waited for
_PATIENCE = 3600.0  # seconds after which it is waited for no more, if nothing was finished meanwhile


def restore_files(
    restorer: Restorer,
    plan: Plan,
    *,
    skip_existing: bool = False,
    finish: Finish | None = None,
    quality: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
    ledger: Ledger | None = None,
    quiet: bool = False,
) -> Report:
    """Restore all files of a plan; while one is restored the next is read, the one before is written.

    A progress bar is shown on standard error. A file that fails is reported at once and in the result; the others are
    done. Ctrl-C stops after tidying up, and what is finished stays. Where nothing more can be written (a full disk, a
    manifest that cannot be appended to), no further file is begun. Results appear under their names only when they
    are complete.

    Args:
        restorer: what each image goes through.
        plan: what to do.
        skip_existing: pass over a source whose target exists, however it was made.
        finish: what is done to the network's rows before they are written; default: nothing.
        quality: of JPEG, WebP and AVIF, see ``write_image``.
        max_pixels: larger pictures are refused.
        allow_truncated: restore what there is of a damaged picture, and note it in the manifest.
        ledger: claims and records; with one, several processes may share the work, and what the manifest proves to be
            done is passed over.
        quiet: no progress bar.
    """
    finish = finish or Finish()
    batch = _Batch(restorer, plan, skip_existing, finish, quality, max_pixels, allow_truncated, ledger, quiet)
    batch.run()
    return batch.report


class _Batch:
    """The pipeline: a thread that claims, reads and decodes; lanes that restore; threads that encode and write."""

    def __init__(
        self,
        restorer: Restorer,
        plan: Plan,
        skip_existing: bool,
        finish: Finish,
        quality: int | None,
        max_pixels: int,
        allow_truncated: bool,
        ledger: Ledger | None,
        quiet: bool,
    ) -> None:
        self.restorer, self.plan, self.ledger = restorer, plan, ledger
        self.skip_existing, self.finish, self.quality = skip_existing, finish, quality
        self.max_pixels, self.allow_truncated = max_pixels, allow_truncated
        self.comparisons = comparisons_of(plan) if finish.compare else {}
        self.report = Report(len(plan.jobs), failed=list(plan.unreadable))
        self.budget = ResourceLimiter(min(MEMORY, (free_bytes(torch.device("cpu")) or 4 * MEMORY) // 4))
        cheaper = cheaper_ways(restorer, finish) if finish.strength else ""
        self.bar = ProgressBar(plan.jobs, quiet, cheaper)
        self.lock = threading.Lock()  # of the report and the bar
        self.claims: set[Claim] = set()
        self.elsewhere: list[Job] = []
        self.settled: set[Job] = set()
        self.open: set[StripQueue[np.ndarray]] = set()
        self.writing: list[Future[None]] = []
        self.threads_are_left = False  # a second Ctrl-C kept them from being waited for

    def run(self) -> None:
        started = time.perf_counter()
        for folder, reason in self.plan.unreadable:
            note(f"failed: {printable(folder)}: {reason}")
        try:
            self._passes()
        except KeyboardInterrupt:
            self.report.interrupted = True
        finally:
            self.bar.close()
            if not self.threads_are_left:  # else they settle their files, and the system releases the other claims
                for claim in self.claims:  # of files that an interrupt kept from being done
                    claim.release()
                if self.ledger is not None:
                    self.ledger.close()
        self.report.left = [job.source for job in self.plan.jobs if job not in self.settled]
        self.report.seconds = time.perf_counter() - started

    def _passes(self) -> None:
        jobs, waiting_since, is_told = list(self.plan.jobs), time.monotonic(), False
        while jobs and self.report.stopped is None:
            before = len(self.settled)
            self._pass(jobs)
            jobs, self.elsewhere = self.elsewhere, []
            if len(self.settled) > before:
                waiting_since, is_told = time.monotonic(), False
            if jobs:  # their holders finish, fail or die; in each case it is known soon
                if not is_told and time.monotonic() > waiting_since + _WAITING:
                    note(f"waiting for other processes, which are at work on {len(jobs)} images: {_named(jobs)}")
                    is_told = True
                if time.monotonic() > waiting_since + _PATIENCE:
                    minutes = f"{_PATIENCE / 60:.0f} minutes"
                    self._stop_taking(OSError(f"other processes hold them, and finished none for {minutes}"))
                time.sleep(_POLL)

    def _pass(self, jobs: Sequence[Job]) -> None:
        """Once over the files; those that others are working on are left for later."""
        count = min(lanes_of(self.restorer), len(jobs))
        first: BaseException | None = None
        try:
            with (
                ThreadPoolExecutor(1, "read") as reader,
                # each lane keeps one busy from an image's first strip on
                ThreadPoolExecutor(ENCODERS + count, "write", initializer=give_way) as writers,
                Lanes(self.restorer.net, count) as lanes,
            ):
                try:
                    lanes.run(self._read_ahead(jobs, reader), lambda item: self._restored(item, lanes, writers))
                    for future in self.writing:
                        future.result()
                except BaseException as error:
                    first = error
                    self._stop(lanes, reader)
                    raise
        except BaseException as error:
            self.threads_are_left = error is not first
            raise

    def _stop(self, lanes: Lanes, reader: ThreadPoolExecutor) -> None:
        """Let no thread wait for another."""
        lanes.stop()
        self.budget.close()
        reader.shutdown(cancel_futures=True)
        for queue in tuple(self.open):
            queue.abandon()

    def _read_ahead(self, jobs: Sequence[Job], reader: ThreadPoolExecutor) -> Iterator[Item]:
        """Decoded images in order, a few ahead of their turn; files that need no work or fail do not appear."""
        remaining, ahead = iter(jobs), deque[Future[Item | None]]()
        while True:
            while self.report.stopped is None and len(ahead) <= AHEAD and (job := next(remaining, None)) is not None:
                ahead.append(reader.submit(self._opened, job))
            if not ahead:
                return
            item = ahead.popleft().result()
            if item is not None and self.report.stopped is not None:
                self._drop(item)
            elif item is not None:
                yield item

    def _opened(self, job: Job) -> Item | None:
        """In the reader's thread: claim a file, see whether there is anything to do, decode it."""
        item = Item(job, None)
        return None if self.report.stopped is not None else self._guarded(item, lambda: self._open(item))

    def _open(self, item: Item) -> Item | None:
        job, ledger = item.job, self.ledger
        parts_below(job.target.parent, self.plan.folder)  # fails before anything is computed
        if self.skip_existing and job.target.exists():
            return self._pass_over(item, self.report.skipped)
        state = State.OPEN
        if ledger is not None:
            item.claim = ledger.claim(job)
            if item.claim is None:
                self.elsewhere.append(job)
                return None
            self.claims.add(item.claim)
            item.source, state = ledger.stamp(job), ledger.state(job)
            if self.skip_existing and job.target.exists():
                return self._pass_over(item, self.report.skipped)
            if self._is_done(item, state):
                return None
        started = time.perf_counter()
        encoded = read_encoded(job.source, max_pixels=self.max_pixels, allow_truncated=self.allow_truncated)
        if ledger is not None:
            item.source["sha256"] = sha256 = encoded.sha256()
            if state is State.UNSURE and self._is_done(item, ledger.state(job, sha256)):
                return None
            if ledger.replaces_another(job, sha256):
                note(f"{printable(job.source)}: replaces {printable(job.target)}, which came from another file")
            elif not ledger.overwrite and ledger.is_unknown(job):
                note(f"{printable(job.source)}: replaces {printable(job.target)}, of which the manifest says nothing")
        height, width = encoded.size()
        scale, tile = self.restorer.scale, self.restorer.tile
        pixels = math.prod(self.finish.size_of(height, width, scale))
        with self.lock:
            self.bar.found_size(job, pixels / 1e6)
        collected = 0 if is_streamed(job.target) else pixels
        cost = bytes_on_the_way(height, width, scale=scale, tile=tile, collected=collected)
        self.budget.take(cost)
        item.cost = cost
        item.image = encoded.decoded()
        self._note(item, item.image.notes)
        item.seconds["read"] = time.perf_counter() - started
        return item

    def _note(self, item: Item, notes: Sequence[str]) -> None:
        """Keep notes for the manifest; say those that have no place there, and that pixels are missing."""
        item.notes += tuple(notes)
        for each in notes:
            if self.ledger is None or each == PARTIAL:
                with self.lock:
                    note(f"{printable(item.job.source)}: {printable(each)}")

    def _is_done(self, item: Item, state: State) -> bool:
        """Settle a file that the manifest says all of."""
        if state is State.DONE:
            self._pass_over(item, self.report.skipped)
        elif state is State.DONE_BY_OTHERS:
            self._pass_over(item, self.report.others)
        elif state is State.FAILED_FOR_OTHERS:
            assert self.ledger is not None
            self._fail(item, self.ledger.reason(item.job))
        return item.settled

    def _restored(self, item: Item, lanes: Lanes, writers: ThreadPoolExecutor) -> None:
        """In a lane's thread."""
        self._raise_what_met_writers()
        if self.report.stopped is not None:
            self._drop(item)
            return
        self._guarded(item, lambda: self._restore(item, lanes, writers))

    def _restore(self, item: Item, lanes: Lanes, writers: ThreadPoolExecutor) -> None:
        """Run the network over one image, handing strips to a writer's thread; from the start where memory ran out."""
        assert item.image is not None
        image, item.image = item.image, None
        lanes.take_share(self.restorer.batch)
        with self.lock:
            self.bar.begin(item.job)
        item.finishing = finishing = Finishing(self.finish, image, self.restorer.scale)
        spec, left_out = spec_of_result(image, finishing.size, item.job.target, self.quality)
        self._note(item, left_out)
        del image
        megapixels = (math.prod(finishing.pixels.shape[:2]) / 1e6, spec.height * spec.width / 1e6)

        def progress(done: int, total: int) -> None:
            with self.lock:
                if not item.settled:  # its writer may have failed meanwhile
                    self.bar.tile(item.job, done, total, megapixels)
            lanes.take_share(self.restorer.batch)

        started = time.perf_counter()
        future: Future[None] | None = None
        queue: StripQueue[np.ndarray] = StripQueue()
        attempts = finishing.attempts(self.restorer, progress=progress, stats=item.stats, side_by_side=lanes.count)
        try:
            for row, strip in attempts:
                if row == 0:
                    self._give_up(queue, future)
                    queue = StripQueue()
                    self.open.add(queue)
                    future = writers.submit(self._written, item, spec, queue)
                queue.put(strip)
            item.seconds["restore"] = time.perf_counter() - started
            queue.finish()
        except BaseException:
            self._give_up(queue, future)
            raise
        finally:
            self.open.discard(queue)
        assert future is not None
        with self.lock:
            self.writing.append(future)

    def _give_up(self, queue: StripQueue[np.ndarray], future: Future[None] | None) -> None:
        """Make a writer drop what it has, and wait until its temporary file is gone."""
        self.open.discard(queue)
        queue.abandon()
        if future is not None:
            future.result()

    def _raise_what_met_writers(self) -> None:
        """What is no fault of one file ends the run: a manifest that cannot be written."""
        with self.lock:
            done = {future for future in self.writing if future.done()}
            self.writing = [future for future in self.writing if future not in done]
        for future in done:
            future.result()

    def _written(self, item: Item, spec: ImageSpec, strips: StripQueue[np.ndarray]) -> None:
        """In a writer's thread."""
        self._guarded(item, lambda: self._write(item, spec, strips))

    def _write(self, item: Item, spec: ImageSpec, strips: StripQueue[np.ndarray]) -> None:
        job, record, finishing = item.job, {}, item.finishing
        assert finishing is not None

        def complete(stream: BinaryIO) -> None:
            if self.ledger is not None and item.claim is not None:
                status, entries = os.fstat(stream.fileno()), item.entries(spec)
                record.update(self.ledger.intend(item.claim, job, status, item.source, entries))

        tag = None if item.claim is None else item.claim.tag
        options = {"quality": self.quality, "within": self.plan.folder, "tag": tag, "complete": complete}
        try:
            with open_strips(job.target, spec, **options) as writer:
                for rows in finishing.rows(strips, spec):
                    started = time.perf_counter()
                    writer.write(rows)
                    item.seconds["write"] = item.seconds.get("write", 0.0) + time.perf_counter() - started
                if self.finish.compare:
                    finishing.write_comparison(self.comparisons[job], self.plan.folder, name=job.target.name)
        except BaseException:
            strips.abandon()
            raise
        if self.ledger is not None:
            self.ledger.manifest.append(record)
        megapixels = math.prod(finishing.pixels.shape[:2]) / 1e6
        item.finishing = None
        with self.lock:
            self.report.written.append(job.target)
            self.report.megapixels += megapixels
            self.report.resampled += not finishing.needs_network
        self._settle(item, megapixels)

    def _pass_over(self, item: Item, where: list[Path]) -> None:
        where.append(item.job.source)
        self._settle(item)

    def _fail(self, item: Item, reason: str, trace: str | None = None) -> None:
        with self.lock:
            if item.settled:
                return
            self.report.failed.append((item.job.source, reason))
        note(f"failed: {printable(item.job.source)}: {printable(reason)}")
        try:
            if trace is not None and self.ledger is not None and item.claim is not None:
                source = item.source or self.ledger.stamp(item.job)
                self.ledger.failed(item.job, reason, trace, source)
        except AppendError as error:
            self._stop_taking(error)
        finally:
            self._settle(item)

    def _stop_taking(self, error: OSError) -> None:
        """Nothing more can be written: begin no further file. What is on its way is settled, and may still fit."""
        with self.lock:
            if self.report.stopped is not None:
                return
            self.report.stopped = reason_of(error)
        note(f"stopped: {self.report.stopped}")

    def _drop(self, item: Item) -> None:
        """Leave a file for another run."""
        with self.lock:
            if item.settled:
                return
            item.settled = True
            self.bar.leave(item.job)
        self._give_back(item)

    def _settle(self, item: Item, megapixels: float | None = None) -> None:
        """A file is done with, one way or another."""
        with self.lock:
            item.settled = True
            self.settled.add(item.job)
            self.bar.settle(item.job, megapixels)
        self._give_back(item)

    def _give_back(self, item: Item) -> None:
        self.budget.give(item.cost)
        if item.claim is not None:
            self.claims.discard(item.claim)
            item.claim.release()

    def _guarded(self, item: Item, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except Cancelled:  # another thread has said why
            return None
        # The one boundary of the batch: whatever a strange file provokes, in our code or a decoder's, concerns that
        # file alone, and thousands of others are waiting. Interrupts are no Exception and pass through.
        except Exception as error:
            logger.debug("%s", item.job.source, exc_info=True)
            if isinstance(error, OSError) and ends_the_run(error):
                self._stop_taking(error)
                self._drop(item)
            else:
                self._fail(item, reason_of(error, item.job.source), traceback.format_exc())
            return None


def _named(jobs: Sequence[Job]) -> str:
    return printable(jobs[0].source) + (", ..." if len(jobs) > 1 else "")
