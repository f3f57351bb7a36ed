"""A restorer over files and folders: which result goes where, one file after the other, and why some failed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mambair.data.image_encoders import DTYPES_OF_FORMAT, FORMAT_OF_SUFFIX
from mambair.data.image_files import SUFFIXES, ImageFile, list_images, read_image, write_image
from mambair.restorer import Progress, Restorer

logger = logging.getLogger(__name__)


class PlanError(ValueError):
    """Input and output do not make a job; the message says what to change."""


@dataclass(frozen=True)
class Job:
    """One file to restore and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the natural order of their names; no two have the same target, and no target is a source.
        folder: the folder that everything is written in.
        notes: what the user should know, a line each.
        unreadable: folders that cannot be listed, and why.
    """

    jobs: list[Job]
    folder: Path
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


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


def plan_jobs(
    source: Path, output: Path, *, format: str = "png", suffix: str = "", same_folder_suffix: str = "_restored"
) -> Plan:
    """Decide which files are restored, and the name of each result.

    A folder is walked recursively and its tree is kept; files whose name does not say image are left out, so are hidden
    ones, and whatever lies in the output folder. Two sources that would get one name (a.png, a.jpg) keep both, as
    a.png and a_jpg.png. If the output folder is the input folder, results get a suffix and are no inputs next time.

    Args:
        source: an image, or a folder.
        output: the folder for the results; for a single image it may also be a file name with an image suffix.
        format: suffix of the results without the dot: png, jpg, tif, webp, ...
        suffix: what to append to the names, before the dot.
        same_folder_suffix: the suffix taken where input and output folder are the same and ``suffix`` is empty.

    Raises:
        PlanError: nothing there, no image in it, or an output that cannot be.
    """
    ending = "." + format.lower().removeprefix(".")
    if ending not in FORMAT_OF_SUFFIX:
        raise PlanError(f"format: must be one of {', '.join(known[1:] for known in FORMAT_OF_SUFFIX)}, got {format!r}")
    if set(suffix) & {"/", os.sep, "\0"}:
        raise PlanError(f"suffix: becomes part of a file name, so it may have no separator, got {suffix!r}")
    if not source.exists():
        raise PlanError(f"input: there is no file or folder {printable(source)}")
    notes: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    if source.is_dir():
        folder = source
        sources = list_images(source, recursive=True, unreadable=lambda error: unreadable.append(_folder_fault(error)))
        sources, notes = _outside(sources, source, output)
    elif output.suffix.lower() in FORMAT_OF_SUFFIX and not output.is_dir():
        if _real(output) == _real(source):
            raise PlanError(f"output: {printable(output)} is the input itself; choose another name")
        return Plan([Job(source, output)], output.parent)
    else:
        folder, sources = source.parent, [source]
    if output.exists() and not output.is_dir():
        raise PlanError(f"output: {printable(output)} is a file; name a folder")
    if _real(folder) == _real(output):
        if not suffix:
            suffix = same_folder_suffix
            notes.append(f"the results lie beside their inputs, so their names end in {suffix!r}")
        if source.is_dir():
            sources = _without_results(sources, suffix)
    if not sources and not unreadable:
        raise PlanError(f"input: no image in {printable(source)} (looked for {', '.join(SUFFIXES)})")
    targets, renamed = _targets(sources, folder, output, suffix, ending)
    jobs = [Job(*pair) for pair in zip(sources, targets, strict=True)]
    return Plan(jobs, output, [*notes, *renamed], unreadable)


def _folder_fault(error: OSError) -> tuple[Path, str]:
    return Path(error.filename), f"the folder cannot be listed ({error.strerror})"


def _outside(sources: list[Path], folder: Path, output: Path) -> tuple[list[Path], list[str]]:
    """The images of ``folder`` that do not lie in the output folder, and a note where some do."""
    results = _real(output)
    if results == _real(folder) or not _is_within(results, _real(folder)):
        return sources, []
    parents = {parent: _is_within(_real(parent), results) for parent in {path.parent for path in sources}}
    kept = [path for path in sources if not parents[path.parent]]
    left_out = len(sources) - len(kept)
    return kept, [f"{left_out} images in the output folder are not taken as input"] if left_out else []


def _without_results(sources: list[Path], suffix: str) -> list[Path]:
    """Drop the files that are results of others: same folder, same name but for ``suffix``, any image format."""
    kept: list[Path] = []
    results: set[Path] = set()
    # a result's name is longer than its source's
    for path in sorted(sources, key=lambda path: len(path.stem)):
        if path.with_suffix("") not in results:
            kept.append(path)
            results |= {path.with_name(stem + suffix) for stem in (path.stem, _full_stem(path))}
    wanted = set(kept)
    return [path for path in sources if path in wanted]


def _targets(sources: list[Path], folder: Path, output: Path, suffix: str, ending: str) -> tuple[list[Path], list[str]]:
    """A target for each source, all different and none of them a source; and a note for each that was renamed."""
    plain = [output / path.relative_to(folder).parent / f"{path.stem}{suffix}{ending}" for path in sources]
    claims: dict[Path, list[Path]] = {}
    for path, target in zip(sources, plain, strict=True):
        claims.setdefault(target, []).append(path)
    taken = {_real(path) for path in sources}
    targets: dict[Path, Path] = {}
    for target, claimants in claims.items():
        # the one that has the format of the results already keeps the plain name; if there are two, neither does
        of_format = [path for path in claimants if path.suffix == ending]
        owner = claimants[0] if len(claimants) == 1 else of_format[0] if len(of_format) == 1 else None
        if owner is not None and _real(target) not in taken:
            targets[owner] = target
            taken.add(_real(target))
    notes = []
    for path, target in zip(sources, plain, strict=True):
        if path not in targets:
            targets[path] = _free_name(target, f"{_full_stem(path)}{suffix}", taken)
            taken.add(_real(targets[path]))
            notes.append(f"{printable(path)}: written as {printable(targets[path].name)}, as its own name is taken")
    return [targets[path] for path in sources], notes


def _full_stem(path: Path) -> str:
    """``a.jpg`` -> ``a_jpg``."""
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix else path.stem


def _free_name(target: Path, stem: str, taken: set[str]) -> Path:
    candidates = (target.with_name(stem + number + target.suffix) for number in _numbers())
    return next(path for path in candidates if _real(path) not in taken)


def _numbers() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f"_{number}"
        number += 1


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
                if skip_existing and job.target.exists():
                    report.skipped.append(job.source)
                else:
                    reason = _attempt(restorer, job, plan.folder, _part_of(bar, index))
                    if reason is None:
                        report.written.append(job.target)
                    else:
                        report.failed.append((job.source, reason))
                        bar.write(f"failed: {printable(job.source)}: {reason}", file=sys.stderr)
                bar.n = index + 1
                bar.refresh()
        except KeyboardInterrupt:
            report.interrupted = True
    report.seconds = time.perf_counter() - started
    return report


def _attempt(restorer: Restorer, job: Job, folder: Path, progress: Progress) -> str | None:
    """Restore one file; None, or why it failed."""
    try:
        restore_file(restorer, job, folder, progress=progress)
    # The one boundary of the batch: whatever a strange file provokes, in our code or a decoder's, concerns that file
    # alone, and thousands of others are waiting. Interrupts are no Exception and pass through.
    except Exception as error:
        logger.debug("%s", job.source, exc_info=True)
        return _reason(error, job.source)
    return None


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
    if not _is_within(_real(job.target.parent), _real(folder)):
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


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def printable(text: object) -> str:
    """``text`` on one line that any terminal takes: names with line breaks or broken bytes are quoted."""
    plain = str(text)
    return plain if plain.isprintable() else ascii(plain)
