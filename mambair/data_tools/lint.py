"""What is wrong with a data set before a training finds out: files, pairs, sizes, test images among the training's."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mambair.data.pairing import DatasetError, paired_images
from mambair.data_tools.parallel import results_of
from mambair.data_tools.perceptual_hash import Fingerprint, fingerprint, matches
from mambair.images.files import list_images, read_image

Progress = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """One fault or warning.

    Attributes:
        kind: "unreadable", "pair", "size", "small", "leak" (a test image among the training's), "twice", "mixed".
        text: names the files and what is wrong.
        is_fault: False for what may be meant.
    """

    kind: str
    text: str
    is_fault: bool = True


@dataclass(frozen=True)
class Examined:
    """What is kept of an image that could be read."""

    shape: tuple[int, int, int]
    dtype: str
    content: str
    print_: Fingerprint | None


@dataclass
class Lint:
    """Examines the folders of one data set.

    Args:
        scale: of the pairs.
        gt_size: training's patch, which every ground truth must hold; 0 does not ask.
        filename_tmpl: name of a low-quality image, ``{}`` being that of its ground truth.
        duplicates: also look for test images among the training's, and for images that are there twice.
        workers: processes.
        progress: called after every image.
    """

    scale: int = 1
    gt_size: int = 0
    filename_tmpl: str = "{}"
    duplicates: bool = True
    workers: int = 1
    progress: Progress = lambda: None
    findings: list[Finding] = field(default_factory=list)

    def run(self, gt: Path, lq: Path | None = None, tests: Sequence[Path] = ()) -> list[Finding]:
        """Examine ground truth, its low-quality partners if there are any, and test sets to keep apart from it.

        Raises:
            ImageFileError: a folder is missing.
            DatasetError: a folder holds no image.
        """
        truth = self._examine(gt, with_print=self.duplicates)
        if lq is not None:
            self._check_pairs(truth, self._examine(lq, with_print=False), gt, lq)
        self._check_sizes(truth)
        self._check_alike(truth)
        if self.duplicates:
            self._check_twice(truth)
            for folder in tests:
                self._check_leaks(truth, self._examine(folder, with_print=True))
        return self.findings

    def _examine(self, folder: Path, *, with_print: bool) -> dict[Path, Examined]:
        """Decode every image of a folder, whole; the unreadable ones become findings."""
        images = list_images(folder)
        if not images:
            raise DatasetError(f"{folder} holds no image file (subfolders are not searched)")
        found: dict[Path, Examined] = {}
        for path, examined, failure in results_of(partial(examine, with_print), images, workers=self.workers):
            if examined is None:
                self.findings.append(Finding("unreadable", str(failure)))
            else:
                found[path] = examined
            self.progress()
        return {path: found[path] for path in images if path in found}

    def _check_pairs(self, truth: dict[Path, Examined], low: dict[Path, Examined], gt: Path, lq: Path) -> None:
        try:
            pairs = paired_images(str(lq), list_images(gt), self.filename_tmpl, is_subset=False)
        except DatasetError as error:
            self.findings += [Finding("pair", fault) for fault in error.faults]
            pairs = self._pairs_there_are(list(truth), list(low))
        for gt_path, lq_path in pairs:
            if gt_path not in truth or lq_path not in low:
                continue
            (height, width, channels), (low_height, low_width, low_channels) = truth[gt_path].shape, low[lq_path].shape
            rest = height - low_height * self.scale, width - low_width * self.scale
            if not all(0 <= pixels < self.scale for pixels in rest):
                text = f"{gt_path}: {height} x {width} is not {self.scale} x {low_height} x {low_width} of {lq_path}"
                self.findings.append(Finding("size", text))
            if channels != low_channels:
                text = f"{gt_path} has {channels} channel(s) and {lq_path} {low_channels}"
                self.findings.append(Finding("mixed", text, is_fault=False))

    def _pairs_there_are(self, truth: list[Path], low: list[Path]) -> list[tuple[Path, Path]]:
        by_stem = {path.stem: path for path in low}
        wanted = {path: self.filename_tmpl.format(path.stem) for path in truth}
        return [(path, by_stem[stem]) for path, stem in wanted.items() if stem in by_stem]

    def _check_sizes(self, truth: dict[Path, Examined]) -> None:
        for path, examined in truth.items():
            height, width = examined.shape[:2]
            if min(height, width) < self.gt_size:
                text = f"{path}: {height} x {width} pixels are too few for patches of {self.gt_size}"
                self.findings.append(Finding("small", text))

    def _check_alike(self, truth: dict[Path, Examined]) -> None:
        """Different depths or numbers of channels in one folder are allowed, and seldom meant."""
        kinds: dict[str, list[Path]] = defaultdict(list)
        for path, examined in truth.items():
            kinds[f"{examined.dtype}, {examined.shape[2]} channel(s)"].append(path)
        if len(kinds) > 1:
            told = "; ".join(f"{kind}: {len(paths)}, e.g. {paths[0].name}" for kind, paths in kinds.items())
            self.findings.append(Finding("mixed", f"images of different kinds ({told})", is_fault=False))

    def _check_twice(self, truth: dict[Path, Examined]) -> None:
        paths, prints = _with_prints(truth)
        for match in matches(prints):
            first, second = paths[match.first], paths[match.second]
            same = truth[first].content == truth[second].content
            text = f"{first} and {second} are the same {'pixels' if same else 'picture'}"
            self.findings.append(Finding("twice", text, is_fault=False))

    def _check_leaks(self, truth: dict[Path, Examined], test: dict[Path, Examined]) -> None:
        paths, prints = _with_prints(truth)
        test_paths, test_prints = _with_prints(test)
        for match in matches(prints, test_prints):
            text = f"{paths[match.first]} is the test image {test_paths[match.second]} ({match.correlation:.3f} alike)"
            self.findings.append(Finding("leak", text))


def _with_prints(examined: dict[Path, Examined]) -> tuple[list[Path], list[Fingerprint]]:
    known = {path: one.print_ for path, one in examined.items() if one.print_ is not None}
    return list(known), list(known.values())


def examine(with_print: bool, path: Path) -> Examined:
    """Decode one image and keep what the checks need.

    Raises:
        ImageFileError: it cannot be read.
    """
    pixels = read_image(path).pixels
    height, width, channels = pixels.shape
    content = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Examined((height, width, channels), pixels.dtype.name, content, fingerprint(pixels) if with_print else None)
