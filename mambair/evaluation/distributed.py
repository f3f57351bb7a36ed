"""Evaluation of one data set by all processes together: each takes every n-th image, and all learn all results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mambair.evaluation.candidates import Candidate
from mambair.evaluation.evaluate import Storage, measure, unique_name
from mambair.evaluation.results import ImageResult, SetResult
from mambair.system.distributed import Processes


class DistributedSubset:
    """The images first, first + step, first + 2 step, ... of a data set.

    Attributes:
        opt: the data set's own options, which name it.
    """

    def __init__(self, dataset: Any, first: int, step: int) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, "opt", {})
        self._numbers = range(first, len(dataset), step)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.dataset[self._numbers[index]]


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
    share = replace(result, dataset=DistributedSubset(result.dataset, rank, step), paths=[], names=[], failed=[])
    own = measure(share, candidates, storage=replace(storage, folder=apart))
    gathered: list[Any] = [None] * step
    dist.all_gather_object(gathered, (own.paths, own.images, own.failed))
    result.failed = list(dict.fromkeys(line for _, _, failed in gathered for line in failed))
    result.images = {candidate.name: {} for candidate in candidates}
    taken: set[str] = set()
    for number in range(len(result.dataset)):
        paths, images, _ = gathered[number % step]
        path: Path | None = paths[number // step]
        name = None if path is None else unique_name(path, taken)
        result.paths.append(path)
        result.names.append(name)
        for candidate, by_number in images.items():
            if name is not None and number // step in by_number:
                image: ImageResult = by_number[number // step]
                picture = storage.picture_name(candidate, name)
                if image.picture and picture and number % step == rank:
                    (apart / image.picture).replace(storage.folder / picture)
                result.images[candidate][number] = replace(image, image=name, picture=picture)
    if apart.is_dir():
        apart.rmdir()
    return result
