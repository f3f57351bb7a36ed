"""Evaluation of one data set by all processes together: each takes every n-th image, and all learn all results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mambair.evaluation.candidates import Candidate
from mambair.evaluation.evaluate import Storage, measure, unique_name
from mambair.evaluation.results import ImageResult, SetResult
from mambair.system.distributed import Processes


def measure_shared(
    result: SetResult, candidates: Sequence[Candidate], processes: Processes, *, storage: Storage
) -> SetResult:
    """`mambair.evaluation.evaluate.measure` over all processes; each returns the whole, in the order of the data set.

    The names of images, also those of the files written, are what one process alone would give them.
    """
    if not processes.distributed:
        return measure(result, candidates, storage=storage)
    rank, step = processes.rank, processes.world_size
    # two processes may meet images of one stem, so each writes apart until all names are known
    apart = storage.folder / f".rank{rank}"

    def name_apart(candidate: str, image: str) -> str | None:
        picture = storage.picture_name(candidate, image)
        return picture and f"{apart.name}/{picture}"

    empty = replace(result, paths={}, names={}, failed=[])
    own = measure(empty, candidates, storage=replace(storage, picture_name=name_apart), share=slice(rank, None, step))
    gathered = [_received(share) for share in processes.gather_json(_sent(own))]
    for paths, _, failed in gathered:
        result.paths |= paths
        result.failed += failed
    result.images = {candidate.name: {} for candidate in candidates}
    taken: set[str] = set()
    for number, path in sorted(result.paths.items()):
        name = result.names[number] = unique_name(path, taken)
        for candidate, by_number in gathered[number % step][1].items():
            image: ImageResult | None = by_number.get(number)
            if image is None:
                continue
            picture = storage.picture_name(candidate, name)
            if image.picture and picture and number % step == rank:
                (storage.folder / image.picture).replace(storage.folder / picture)
            result.images[candidate][number] = replace(image, image=name, picture=picture)
    if apart.is_dir() and not apart.is_symlink():
        apart.rmdir()
    return result


Share = tuple[dict[int, Path], dict[str, dict[int, ImageResult]], list[str]]  # paths, images, failed


def _sent(own: SetResult) -> list[Any]:
    """Paths, images and failures of one process as JSON can hold them."""
    images = {name: [(number, asdict(image)) for number, image in found.items()] for name, found in own.images.items()}
    return [[(number, str(path)) for number, path in own.paths.items()], images, own.failed]


def _received(share: list[Any]) -> Share:
    paths, images, failed = share
    by_candidate = {name: {number: ImageResult(**image) for number, image in found} for name, found in images.items()}
    return {number: Path(path) for number, path in paths}, by_candidate, failed
