"""Which images are in a folder, which of them a meta-info file names, and which belong together by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mambair.images.decoded_image import ImageFileError
from mambair.images.files import SUFFIXES, list_images
from mambair.system.bounded_reader import read_lines

MOST_META_INFO_BYTES = 2**28
_SHOWN = 5
_META_LINE = re.compile(r"(.+?) \(\d+, ?\d+(, ?\d+)?\)( \d+)?")


class DatasetError(ValueError):
    """A data set cannot be made of what its options name; the message lists every fault as ``key: what is wrong``."""

    def __init__(self, faults: Sequence[str] | str) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


def images_of(key: str, folder: str | os.PathLike[str], *, recursive: bool = False) -> list[Path]:
    """The images in ``folder``, which stands under ``key`` in the options, in natural order.

    Raises:
        DatasetError: the folder is missing, or holds no image.
    """
    try:
        paths = list_images(folder, recursive=recursive)
    except ImageFileError as error:
        raise DatasetError(f"{key}: {error}") from None
    if not paths:
        hint = "" if recursive else " (subfolders are not searched)"
        raise DatasetError(f"{key}: {folder} holds no image file{hint}")
    return paths


def names_in(meta_info_file: str) -> list[str]:
    """The names in BasicSR's meta-info file, one a line: ``name.png (height,width,channels)``, or the name alone.

    Raises:
        DatasetError: the file is missing, is no text, or names nothing.
    """
    return [_name_in(line) for line in text_lines("meta_info_file", meta_info_file)]


def _name_in(line: str) -> str:
    match = _META_LINE.fullmatch(line)
    if match:
        return match[1]
    return line if Path(line).suffix.lower() in SUFFIXES else line.split(" ")[0]


def text_lines(key: str, file: str) -> list[str]:
    """The lines of a list of images, which stands under ``key``, without empty ones and spaces at their ends.

    Raises:
        DatasetError: the file is missing, is no text, or is empty.
    """
    try:
        lines = read_lines(Path(file), MOST_META_INFO_BYTES)
    except OSError as error:
        raise DatasetError(f"{key}: {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{key}: {file} is not UTF-8 text") from None
    except ValueError as error:
        raise DatasetError(f"{key}: {file} cannot be read ({error})") from None
    lines = [line.rstrip() for line in lines if line.strip()]
    if not lines:
        raise DatasetError(f"{key}: {file} names no image")
    return lines


def paired_images(
    folder: str, gt_paths: Sequence[Path], filename_tmpl: str, *, is_subset: bool
) -> list[tuple[Path, Path]]:
    """(ground truth, low quality) paths; partners are found by stem, whatever their suffix.

    Args:
        folder: ``dataroot_lq``.
        gt_paths: the ground truth.
        filename_tmpl: stem of the partner, ``{}`` being the stem of the ground truth (``{}x4``).
        is_subset: the ground truth is a selection, so that other images in ``folder`` are no fault.

    Raises:
        DatasetError: a missing or empty folder, an ambiguous stem, or images without partner on either side.
    """
    faults: list[str] = []
    theirs = by_name("dataroot_lq", [(path.stem, path) for path in images_of("dataroot_lq", folder)], faults)
    ours = by_name("dataroot_gt", [(path.stem, path) for path in gt_paths], faults)
    partners = pair_by_name(ours, theirs, filename_tmpl, faults, where=folder, is_subset=is_subset)
    if faults:
        raise DatasetError(faults)
    return list(partners.items())


def by_name(key: str, named: Sequence[tuple[str, Path]], faults: list[str]) -> dict[str, Path]:
    """Name -> path; a name that stands twice is noted among the ``faults`` of ``key``."""
    found: dict[str, Path] = {}
    twice = [name for name, path in named if found.setdefault(name, path) != path]
    if twice:
        faults.append(f"{key}: several files of one name but for the suffix: {listed(twice)}; keep one of each")
    return found


def pair_by_name(
    ours: Mapping[str, Path],
    theirs: Mapping[str, Path],
    filename_tmpl: str,
    faults: list[str],
    *,
    where: object,
    is_subset: bool,
) -> dict[Path, Path]:
    """The partner among ``theirs`` of each of ``ours``; those without one, on either side, are noted as faults.

    Args:
        ours, theirs: ground truth and low quality by name without suffix; folders in names are parted by ``/``.
        filename_tmpl: last part of the partner's name, ``{}`` being that of the ground truth.
        faults: of ``dataroot_gt`` and ``dataroot_lq``.
        where: the folder of ``theirs``, for messages.
        is_subset: the ground truth is a selection, so that others of ``theirs`` are no fault.
    """
    wanted = {_partner_name(name, filename_tmpl): path for name, path in ours.items()}
    lonely = [(name, path.name) for name, path in wanted.items() if name not in theirs]
    if lonely:
        hint = f"looked for {lonely[0][0]}.* ; is filename_tmpl ({filename_tmpl}) right?"
        faults.append(f"dataroot_lq: {where} has no partner of {listed([name for _, name in lonely])}; {hint}")
    extra = [] if is_subset else [path.name for name, path in theirs.items() if name not in wanted]
    if extra:
        faults.append(f"dataroot_gt: no ground truth for {listed(extra)} of dataroot_lq")
    return {path: theirs[name] for name, path in wanted.items() if name in theirs}


def _partner_name(name: str, filename_tmpl: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + filename_tmpl.format(last)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
