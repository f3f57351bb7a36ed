"""What a run tells: the log file, the progress line and metrics.jsonl; curves are drawn by writers.py."""

from __future__ import annotations

import datetime
import io
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mambair.system.console import PrintableFormatter
from mambair.system.jsonl import JsonLines
from mambair.system.private_append import open_to_append
from mambair.system.process_memory import highest_bytes
from mambair.system.tables import jsonable
from mambair.training.writers import Writers

logger = logging.getLogger(__name__)

WARM_UP_ITERATIONS = 3
FORMAT = "%(asctime)s %(levelname)s: %(message)s"


class HeldLog(logging.Handler):
    """Keeps what is logged before there is a file for it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def hold_log() -> HeldLog:
    """Keep our log and basicsr's from now on, for the file of `start_logging`; `stop_logging` ends it."""
    held = HeldLog()
    for name in ("mambair", "basicsr"):
        logging.getLogger(name).addHandler(held)
    return held


def start_logging(log_file: Path | None, *, is_main: bool, held: HeldLog | None = None) -> list[logging.Handler]:
    """Send our log to the screen or, with ``log_file``, ours and basicsr's to that file; other ranks only warn.

    Args:
        log_file: begins with what was ``held``.

    Returns:
        The handlers, for `stop_logging`.
    """
    package_log = logging.getLogger("mambair")
    package_log.setLevel(logging.INFO if is_main else logging.WARNING)
    if log_file is None:
        handler: logging.Handler = logging.StreamHandler(sys.stdout)
    elif is_main:
        handler = _LogFile(log_file, encoding="utf-8", errors="backslashreplace")
        # basicsr's models write to their own logger, which has a screen handler of its own
        logging.getLogger("basicsr").addHandler(handler)
    else:
        return []
    handler.setFormatter(PrintableFormatter(FORMAT))
    if held is not None:
        stop_logging([held])
        for record in held.records:
            handler.handle(record)
    package_log.addHandler(handler)
    return [handler]


class _LogFile(logging.FileHandler):
    """A log file behind the path gate: no link is followed, and only a regular file is appended to."""

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_to_append(Path(self.baseFilename)), encoding=self.encoding, errors=self.errors)


def stop_logging(handlers: list[logging.Handler]) -> None:
    """Detach and close what `start_logging` attached."""
    for handler in handlers:
        for name in ("mambair", "basicsr"):
            logging.getLogger(name).removeHandler(handler)
        handler.close()


def peak_memory_mib(device: torch.device) -> float:
    """The most memory used so far in MiB: torch's on a GPU, this process's on a CPU (0 where the OS does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return (highest_bytes() or 0) / 2**20


class Stopwatch:
    """Mean seconds per iteration, and how much of them was waiting for data, since the last report.

    Args:
        warm_up: so many iterations at the beginning of a run, which load and compile, are in no mean, unless there
            were no others since.
    """

    def __init__(self, warm_up: int = WARM_UP_ITERATIONS) -> None:
        self._warm_up = warm_up
        self._before = (0.0, 0.0)
        self.reset()

    def reset(self) -> None:
        """Start a new window (after a report, a validation or a checkpoint)."""
        self._began = time.perf_counter()
        self.iterations = 0
        self.waited = 0.0

    def iteration_done(self, waited: float) -> None:
        """Count one iteration that waited ``waited`` seconds for its data."""
        self.iterations += 1
        self.waited += waited
        self._warm_up -= 1
        if self._warm_up == 0:
            self._before = self.means()
            self.reset()

    def means(self) -> tuple[float, float]:
        """Seconds per iteration and seconds of waiting for data per iteration."""
        if self.iterations == 0:
            return self._before
        return (time.perf_counter() - self._began) / self.iterations, self.waited / self.iterations


class RunLog:
    """Writes one record per report to the log, metrics.jsonl and what draws curves.

    Args:
        name: of the experiment, in front of each line.
        total_iterations: for the time left.
        batch_size: images of an iteration over all processes, for images/s.
        metrics_file: appended to; one JSON object a line.
        curves: draws, see writers.py; or None.
    """

    def __init__(
        self, name: str, total_iterations: int, batch_size: int, metrics_file: Path | None, curves: Writers | None
    ) -> None:
        self.name = name
        self.total_iterations = total_iterations
        self.batch_size = batch_size
        self.curves = curves
        self._metrics_file = None if metrics_file is None else JsonLines(metrics_file)

    def report(
        self,
        iteration: int,
        epoch: int,
        losses: Mapping[str, float],
        learning_rates: list[float],
        seconds: float,
        waited: float,
        memory_mib: float,
    ) -> None:
        """Log a finished iteration; times in seconds, means since the last report."""
        rates = sorted(set(learning_rates), reverse=True)
        left = datetime.timedelta(seconds=int(seconds * (self.total_iterations - iteration)))
        images_per_second = self.batch_size / seconds if seconds > 0 else math.inf
        logger.info(
            "[%s] iter %d/%d, epoch %d, lr %s, %s | %.3f s/iter (data %.3f), %.1f images/s, left %s, peak %.0f MiB",
            self.name,
            iteration,
            self.total_iterations,
            epoch,
            " ".join(f"{rate:.2e}" for rate in rates),
            ", ".join(f"{key} {value:.4e}" for key, value in losses.items()),
            seconds,
            waited,
            images_per_second,
            left,
            memory_mib,
        )
        record = {"iter": iteration, "epoch": epoch, "lr": rates[0], **losses}
        speed = {"seconds": round(seconds, 4), "data_seconds": round(waited, 4)}
        self._append({**record, **speed, "images_per_second": round(images_per_second, 2), "memory_mib": memory_mib})
        if self.curves is not None:
            for key, value in losses.items():
                self.curves.add_scalar(f"losses/{key}", value, iteration)
            self.curves.add_scalar("lr", rates[0], iteration)

    def record_validation(
        self, iteration: int, dataset: str, metrics: Mapping[str, float], baseline: Mapping[str, Any] | None = None
    ) -> None:
        """Add the metrics of one data set to metrics.jsonl (the model itself logs and draws them).

        Args:
            baseline: {"name": "bicubic", metric: value} of the unrestored input.
        """
        beside = {"baseline": dict(baseline)} if baseline else {}
        self._append({"iter": iteration, "validation": dataset, **metrics, **beside})

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._metrics_file is not None:
            self._metrics_file.append(jsonable(record))

    def close(self) -> None:
        """Close metrics.jsonl and the curves."""
        if self._metrics_file is not None:
            self._metrics_file.close()
        if self.curves is not None:
            self.curves.close()
