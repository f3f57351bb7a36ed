"""Data sets made ready for training: sub-images, MATLAB's bicubic reductions, LMDB and meta-info, each verified."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mambair.data.lmdb_store import LmdbReader, LmdbWriter, is_text
from mambair.data.pairing import DatasetError, by_name, images_of, listed, paired_images
from mambair.data_tools.parallel import WorkReport, keep_settings, results_of, work_through
from mambair.data_tools.sub_images import CutJob, Grid, cut, same_pixels, write_verified
from mambair.images.files import list_images, read_encoded, read_image
from mambair.images.resize import imresize
from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable

logger = logging.getLogger(__name__)

Progress = Callable[[], object]


def make_sub_images(
    source: Path,
    target: Path,
    grid: Grid,
    *,
    partners: Path | None = None,
    partners_target: Path | None = None,
    filename_tmpl: str = "{}",
    verify: bool = False,
    workers: int = 1,
    progress: Progress = lambda: None,
) -> WorkReport:
    """Cut all images of a folder, and with ``partners`` their low-quality images at the same places.

    Args:
        source, target: folders of the ground truth and of its sub-images.
        grid: squares; its scale is that of the pairs.
        partners, partners_target: the same for the low-quality images; both or none.
        filename_tmpl: name of a partner, ``{}`` being that of the ground truth.
        verify: compare what is there already pixel by pixel.
        workers: processes.
        progress: called after every image.

    Raises:
        DatasetError: a folder is missing or empty, or images have no partner.
        RequestError: a target was made in another way.
    """
    settings = {"source": source.resolve(), "grid": grid}
    images = _flat_images(source)
    if partners is None or partners_target is None:
        jobs = [CutJob(path, target, grid, verify=verify) for path in images]
    else:
        pairs = paired_images(str(partners), images, filename_tmpl, is_subset=False)
        jobs = [CutJob(gt, target, grid, lq, partners_target, filename_tmpl, verify) for gt, lq in pairs]
        keep_settings(partners_target, {**settings, "source": partners.resolve()})
    keep_settings(target, settings)
    return work_through(cut, jobs, workers=workers, progress=progress)


def _flat_images(source: Path) -> list[Path]:
    """The images of a folder whose names become names of what is made of them; a warning counts those further down.

    Raises:
        DatasetError: the folder is missing or empty, or two names differ only in the suffix.
    """
    images, faults = images_of("source", source), []
    by_name("source", [(path.stem, path) for path in images], faults)
    if faults:
        raise DatasetError(faults)
    below = len(list_images(source, recursive=True)) - len(images)
    if below:
        logger.warning("%s: %d images in folders below it are not used; name these folders one by one", source, below)
    return images


@dataclass(frozen=True)
class ReductionJob:
    """One image, and for each scale the file of its reduction."""

    source: Path
    targets: Mapping[int, Path]
    verify: bool = False


def reduce_image(job: ReductionJob) -> bool:
    """Make the missing reductions of one image, and read them back. Returns whether there were any.

    Raises:
        ImageFileError: an image cannot be read or written.
        ValueError: it is smaller than a scale.
    """
    missing = {scale: path for scale, path in job.targets.items() if job.verify or not path.is_file()}
    if not missing:
        return False
    pixels = read_image(job.source).pixels
    made = False
    for scale, path in missing.items():
        height, width = (length - length % scale for length in pixels.shape[:2])
        if not height or not width:
            raise ValueError(
                f"{job.source}: {pixels.shape[0]} x {pixels.shape[1]} pixels are too few for scale {scale}"
            )
        reduced = imresize(pixels[:height, :width], 1 / scale)
        if not (path.is_file() and same_pixels(path, reduced)):
            write_verified(path, reduced)
            made = True
    return made


def make_reductions(
    source: Path,
    targets: Mapping[int, Path],
    *,
    filename_tmpl: str = "{}x{scale}",
    verify: bool = False,
    workers: int = 1,
    progress: Progress = lambda: None,
) -> WorkReport:
    """Reduce all images of a folder as MATLAB's imresize does, after cutting them to a multiple of the scale.

    Args:
        source: folder of the ground truth.
        targets: scale -> folder.
        filename_tmpl: stem of a reduction; ``{}`` is that of the ground truth, ``{scale}`` the scale.
        verify, workers, progress: as in `make_sub_images`.

    Raises:
        DatasetError: the source is missing or empty.
        RequestError: a target was made in another way.
    """
    images = _flat_images(source)
    for scale, folder in targets.items():
        keep_settings(folder, {"source": source.resolve(), "scale": scale, "filename_tmpl": filename_tmpl})
    jobs = [
        ReductionJob(
            path,
            {
                scale: folder / f"{filename_tmpl.format(path.stem, scale=scale)}.png"
                for scale, folder in targets.items()
            },
            verify,
        )
        for path in images
    ]
    return work_through(reduce_image, jobs, workers=workers, progress=progress)


def _encoded_and_shape(path: Path) -> tuple[bytes, tuple[int, int, int]]:
    """A file as it is, and the shape it decodes to."""
    encoded = read_encoded(path)
    height, width, channels = encoded.decoded().pixels.shape
    return encoded.content, (height, width, channels)


def make_lmdb(source: Path, target: Path, *, workers: int = 1, progress: Progress = lambda: None) -> WorkReport:
    """Put all images below a folder into an LMDB, byte for byte, each decoded once before and compared afterwards.

    Keys are the paths below ``source`` without suffix. An interrupted run is gone on with. If an image cannot be read,
    no database appears under its name; the next run takes up what was stored.

    Args:
        source: folder of images, walked recursively.
        target: the database, a folder whose name should end in ``.lmdb``.
        workers, progress: as in `make_sub_images`.

    Raises:
        DatasetError: the database exists, two images have one key, or the package lmdb is missing.
        ImageFileError: the source is no folder.
        UnfinishedError: an image could not be read, or what is stored differs from its file.
    """
    images = list_images(source, recursive=True)
    if not images:
        raise UnfinishedError(f"{source} holds no image file", WorkReport())
    keys = {path: path.relative_to(source).with_suffix("").as_posix() for path in images}
    report = WorkReport()
    with LmdbWriter(target, resume=True) as writer:
        missing = [path for path in images if keys[path] not in writer]
        report.there = len(images) - len(missing)
        for path, found, failure in results_of(_encoded_and_shape, missing, workers=workers):
            if found is None:
                report.failed.append((str(path), failure or ""))
            else:
                writer.put(keys[path], found[0], *found[1], suffix=path.suffix)
                report.made += 1
            progress()
        if report.failed:
            raise UnfinishedError(f"{target} is not finished: {len(report.failed)} images cannot be read", report)
    reader = LmdbReader(target)
    different = [str(path) for path, same, _ in results_of(partial(_is_stored, reader, keys), images) if not same]
    reader.close()
    if different:
        raise UnfinishedError(f"{target} differs from its files: {', '.join(different[:5])}; remove it", report)
    return report


class UnfinishedError(ValueError):
    """A database or list is not made because images cannot be used; ``report`` says which."""

    def __init__(self, message: str, report: WorkReport) -> None:
        super().__init__(message)
        self.report = report


def _is_stored(reader: LmdbReader, keys: Mapping[Path, str], path: Path) -> bool:
    return reader.get(keys[path]) == read_encoded(path).content


def _meta_line(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    if not is_text(name):
        raise ValueError(f"{path}: its name cannot stand on a line of UTF-8 text; rename the file")
    height, width, channels = read_image(path).pixels.shape
    return f"{name} ({height},{width},{channels})"


def write_meta_info(source: Path, target: Path, *, workers: int = 1, progress: Progress = lambda: None) -> WorkReport:
    """List the images below a folder with their sizes, as ``meta_info_file`` takes it; each is decoded whole.

    Raises:
        ImageFileError: the source is no folder.
        UnfinishedError: an image cannot be read, has a line end or broken UTF-8 in its name, or there is none; nothing
            is written.
    """
    images = list_images(source, recursive=True)
    lines: dict[Path, str] = {}
    report = WorkReport()
    for path, line, failure in results_of(partial(_meta_line, source), images, workers=workers):
        if line is None:
            report.failed.append((str(path), failure or ""))
        else:
            lines[path] = line
            report.made += 1
        progress()
    if report.failed or not lines:
        reason = f"{len(report.failed)} images cannot be used" if report.failed else f"{source} holds no image file"
        raise UnfinishedError(f"{target} is not written: {reason}", report)
    with atomic_path(target) as temporary:
        temporary.write_text("".join(f"{lines[path]}\n" for path in images), encoding="utf-8", newline="\n")
    spaced = [path.name for path in images if " " in path.relative_to(source).as_posix()]
    if spaced:
        logger.warning("%s: basicsr cannot read names with a space: %s", target, printable(listed(spaced)))
    return report
