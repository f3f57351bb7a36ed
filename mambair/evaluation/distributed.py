"""Evaluation of one data set by all processes together: each takes every n-th image, and all learn all results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mambair.evaluation.evaluate import NAME, Evaluation, evaluate, unique_name
from mambair.system.distributed import Processes


class DistributedSubset:
    """The images first, first + step, first + 2 step, ... of a data set.

    Attributes:
        opt: the data set's own options, which name it.
        taken_paths: ``lq_path`` of the images taken so far, in the order they were taken.
    """

    def __init__(self, dataset: Any, first: int, step: int) -> None:
        self.dataset = dataset
        self.opt = getattr(dataset, "opt", {})
        self.taken_paths: list[str] = []
        self._numbers = range(first, len(dataset), step)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        item = self.dataset[self._numbers[index]]
        if isinstance(item, Mapping) and "lq_path" in item:
            self.taken_paths.append(item["lq_path"])
        return item


def evaluate_shared(
    restore: Callable[[Tensor], Tensor],
    dataset: Any,
    metrics: Mapping[str, Mapping[str, Any]],
    processes: Processes,
    *,
    save_folder: Path | None = None,
    suffix: str | None = None,
) -> Evaluation:
    """`mambair.evaluation.evaluate.evaluate` over all processes; each returns the whole, in the order of the data set.

    The names of images, also those of the files saved, are what one process alone would give them.
    """
    if not processes.distributed:
        return evaluate(restore, dataset, metrics, save_folder=save_folder, suffix=suffix, progress=False)
    share = DistributedSubset(dataset, processes.rank, processes.world_size)
    # two processes may meet images of one stem, so each writes apart until all names are known
    apart = save_folder / f".rank{processes.rank}" if save_folder else None
    own = evaluate(restore, share, metrics, save_folder=apart, suffix=suffix, progress=False)
    gathered = processes.gather_json([share.taken_paths, own.per_image])
    count, step = len(dataset), processes.world_size
    taken: set[str] = set()
    in_order: list[dict[str, Any]] = []
    for number in range(count):
        paths, images = gathered[number % step]
        image = dict(images[number // step])
        before, image[NAME] = image[NAME], unique_name(Path(paths[number // step]), taken)
        if save_folder and apart and number % step == processes.rank:
            (apart / _file_name(before, suffix)).replace(save_folder / _file_name(image[NAME], suffix))
        in_order.append(image)
    if apart and apart.is_dir():
        apart.rmdir()
    return Evaluation(own.dataset, own.metrics, in_order)


def _file_name(name: str, suffix: str | None) -> str:
    """As `mambair.evaluation.evaluate.evaluate` names files."""
    return f"{name}_{suffix}.png" if suffix else f"{name}.png"
