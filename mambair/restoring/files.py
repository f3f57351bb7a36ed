"""A restorer over files: one after the other, each result complete or absent, and why some failed."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mambair.data.image_encoders import DTYPES_OF_FORMAT, FORMAT_OF_SUFFIX
from mambair.data.image_files import ImageFile, read_image, write_image
from mambair.restorer import Progress, Restorer
from mambair.restoring.plan import Job, Plan, PlanError, is_within, printable, real

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """What was done: targets written, sources passed over because their target exists, sources that failed and why."""

    total: int
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every file was restored or had been."""
        return not self.failed and not self.interrupted

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{len(self.written)} of {self.total} images restored in {self.seconds:.1f} s"]
        if self.skipped:
            parts.append(f"{len(self.skipped)} were there already")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.interrupted:
            parts.append("interrupted")
        return ", ".join(parts)


def restore_files(restorer: Restorer, plan: Plan, *, skip_existing: bool = False, quiet: bool = False) -> Report:
    """Restore file after file, with a progress bar on standard error.

    A file that fails is reported at once and in the result; the others are done. Ctrl-C stops after tidying up, and
    what is finished stays. Results appear under their names only when they are complete.

    Args:
        restorer: what each image goes through.
        plan: what to do.
        skip_existing: pass over a source whose target exists.
        quiet: no progress bar.
    """
    report = Report(len(plan.jobs), failed=list(plan.unreadable))
    started = time.perf_counter()
    with _progress_bar(len(plan.jobs), quiet) as bar:
        for folder, reason in plan.unreadable:
            bar.write(f"failed: {printable(folder)}: {reason}", file=sys.stderr)
        try:
            for index, job in enumerate(plan.jobs):
                bar.set_description(printable(job.source.name), refresh=False)
                try:
                    if skip_existing and job.target.exists():
                        report.skipped.append(job.source)
                    else:
                        restore_file(restorer, job, plan.folder, progress=_part_of(bar, index))
                        report.written.append(job.target)
                # The one boundary of the batch: whatever a strange file provokes, in our code or a decoder's, concerns
                # that file alone, and thousands of others are waiting. Interrupts are no Exception and pass through.
                except Exception as error:
                    logger.debug("%s", job.source, exc_info=True)
                    report.failed.append((job.source, _reason(error, job.source)))
                    bar.write(f"failed: {printable(job.source)}: {report.failed[-1][1]}", file=sys.stderr)
                bar.n = index + 1
                bar.refresh()
        except KeyboardInterrupt:
            report.interrupted = True
    report.seconds = time.perf_counter() - started
    return report


def restore_file(restorer: Restorer, job: Job, folder: Path, *, progress: Progress | None = None) -> None:
    """Read, restore and write one image. Metadata is kept as far as the format holds it.

    Args:
        restorer: what the image goes through.
        job: from where, to where.
        folder: the output folder; links that lead out of it are not followed.
        progress: see ``Restorer``.

    Raises:
        ImageFileError: the file cannot be read, or the result not be written in that format.
        PlanError: the target lies outside ``folder``.
        ValueError, ArithmeticError, OSError: whatever else stops the restorer or the file system.
    """
    if not is_within(real(job.target.parent), real(folder)):
        raise PlanError(f"a link in the output folder leads out of it: {printable(job.target.parent)}")
    image = read_image(job.source)
    restored = restorer(image.interleaved(), progress=progress)
    colours = image.pixels.shape[2]
    pixels, alpha = restored[:, :, :colours], None if image.alpha is None else restored[:, :, colours]
    write_image(job.target, _fit_depth(replace(image, pixels=pixels, alpha=alpha), job.target))


def _fit_depth(image: ImageFile, target: Path) -> ImageFile:
    """Lower the depth to the best that the target's format holds: float to 16 bit for PNG, all to 8 bit for JPEG."""
    holds = DTYPES_OF_FORMAT.get(FORMAT_OF_SUFFIX.get(target.suffix.lower(), ""), ("uint8",))
    if image.pixels.dtype.name in holds:
        return image
    dtype = np.dtype(holds[-1])
    pixels = _rescaled(image.pixels, dtype)
    return replace(image, pixels=pixels, alpha=None if image.alpha is None else _rescaled(image.alpha, dtype))


def _rescaled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    white = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    return np.rint(values * (np.iinfo(dtype).max / white)).astype(dtype)


def _reason(error: Exception, source: Path) -> str:
    """The error in one line, without repeating the file's name or losing what kind of error it was."""
    text = " ".join(str(error).removeprefix(f"{source}: ").split())
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"out of memory; try a smaller --tile ({text or type(error).__name__})"
    known = isinstance(error, (ValueError, ArithmeticError, OSError))
    return printable(text) if known and text else printable(f"{type(error).__name__}: {text}")


def _progress_bar(total: int, quiet: bool) -> tqdm:
    return tqdm(
        total=total,
        disable=quiet,
        file=sys.stderr,
        # a log file needs no ten lines a second
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        bar_format="{l_bar}{bar}| {n:.1f}/{total} images [{elapsed}<{remaining}]",
    )


def _part_of(bar: tqdm, index: int) -> Progress:
    """Let the tiles of image number ``index`` move the bar from ``index`` to ``index + 1``."""

    def progress(done: int, total: int) -> None:
        bar.update(index + done / total - bar.n)

    return progress
