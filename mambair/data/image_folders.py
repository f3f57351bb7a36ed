"""Which files make up a data set: ground truth by folder or meta-info file, and its partners by stem."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mambair.data.image_files import ImageFileError, list_images

_SHOWN = 5


class DatasetError(ValueError):
    """A data set cannot be made of what its options name; the message lists every fault as ``key: what is wrong``."""

    def __init__(self, faults: Sequence[str] | str) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


def ground_truth_images(folder: str, meta_info_file: str | None = None) -> list[Path]:
    """The images of ``dataroot_gt`` in natural order, or those a meta-info file names, in its order.

    Args:
        folder: searched without its subfolders.
        meta_info_file: BasicSR's: one line per image, the file name (relative to ``folder``) up to the first space.

    Raises:
        DatasetError: a missing or empty folder, or a meta-info file that is missing, empty or names missing files.
    """
    if meta_info_file is None:
        return images_of("dataroot_gt", folder)
    if not Path(folder).is_dir():
        raise DatasetError(f"dataroot_gt: {folder} is no folder")
    try:
        lines = Path(meta_info_file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DatasetError(f"meta_info_file: {meta_info_file} cannot be read ({error.strerror})") from None
    names = [line.split(" ")[0] for line in lines if line.strip()]
    if not names:
        raise DatasetError(f"meta_info_file: {meta_info_file} names no image")
    missing = [name for name in names if not Path(folder, name).is_file()]
    if missing:
        raise DatasetError(f"meta_info_file: {meta_info_file} names files that {folder} lacks: {_listed(missing)}")
    return [Path(folder, name) for name in names]


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
    lq_paths = images_of("dataroot_lq", folder)
    faults = []
    for key, paths in (("dataroot_gt", gt_paths), ("dataroot_lq", lq_paths)):
        twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
        if twice:
            faults.append(f"{key}: several files of one name but for the suffix: {_listed(twice)}; keep one of each")
    by_stem = {path.stem: path for path in lq_paths}
    wanted = {filename_tmpl.format(path.stem): path for path in gt_paths}
    lonely = [path.name for stem, path in wanted.items() if stem not in by_stem]
    if lonely:
        example = filename_tmpl.format(Path(lonely[0]).stem)
        hint = f"looked for {example}.* ; is filename_tmpl ({filename_tmpl}) right?"
        faults.append(f"dataroot_lq: {folder} has no partner of {_listed(lonely)}; {hint}")
    extra = [] if is_subset else [path.name for path in lq_paths if path.stem not in wanted]
    if extra:
        faults.append(f"dataroot_gt: no ground truth for {_listed(extra)} of dataroot_lq")
    if faults:
        raise DatasetError(faults)
    return [(path, by_stem[stem]) for stem, path in wanted.items()]


def images_of(key: str, folder: str | os.PathLike[str]) -> list[Path]:
    """The images directly in ``folder``, which stands under ``key`` in the options, in natural order.

    Raises:
        DatasetError: the folder is missing, or holds no image.
    """
    try:
        paths = list_images(folder)
    except ImageFileError as error:
        raise DatasetError(f"{key}: {error}") from None
    if not paths:
        raise DatasetError(f"{key}: {folder} holds no image file (subfolders are not searched)")
    return paths


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
