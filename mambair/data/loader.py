"""Which sample comes when: every sample and its randomness is a function of (seed, number), in any worker, at any time.

The global random generators are neither read nor written.
"""

from __future__ import annotations

import logging
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from mambair.data.pairing import DatasetError
from mambair.images.decoded_image import ImageFileError
from mambair.system.exit_codes import ENDING_SIGNALS
from mambair.system.own_code import import_modules, imported_modules

logger = logging.getLogger(__name__)

# first words of the seeds of the independent streams
_ORDER, _SAMPLE, _SUBSTITUTE = 0, 1, 2
# so many images are tried in place of one that cannot be used
_SUBSTITUTES = 32


class SampleSequence:
    """An endless sequence of samples: number n -> (image, source of randomness), shuffled anew in every epoch.

    Args:
        length: number of images.
        seed: of the whole training, >= 0.
        shuffle: False goes through the images in order.
    """

    def __init__(self, length: int, seed: int, *, shuffle: bool = True) -> None:
        if length < 1:
            raise ValueError(f"length: must be positive, got {length}: the data set is empty")
        if seed < 0:
            raise ValueError(f"seed: must not be negative, got {seed}")
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self._order: tuple[int, np.ndarray | None] = (-1, None)

    def index(self, number: int) -> int:
        """The image of sample ``number`` (from 0); each epoch of ``length`` numbers has every image once."""
        epoch, place = divmod(number, self.length)
        if not self.shuffle:
            return place
        known, order = self._order
        if known != epoch or order is None:
            order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(self.length)
            self._order = (epoch, order)
        return int(order[place])

    def rng(self, number: int) -> np.random.Generator:
        """A fresh source of randomness for sample ``number``."""
        return np.random.default_rng([self.seed, _SAMPLE, number])

    def substitutes(self, number: int) -> Iterator[tuple[int, np.random.Generator]]:
        """Images, each with a source of randomness, to try in place of that of sample ``number``."""
        for attempt in range(_SUBSTITUTES):
            rng = np.random.default_rng([self.seed, _SUBSTITUTE, number, attempt])
            yield int(rng.integers(self.length)), rng


class Substituted(NamedTuple):
    """A sample, or a batch, with what was wrong with the images in whose place others were taken."""

    content: Any
    faults: list[str]


class NumberedSamples(Dataset[Any]):
    """A data set indexed by the number of a sample in a sequence instead of by image.

    Data sets with ``sample(index, rng)`` get the sequence's generator. Others, such as basicsr's, draw from the global
    generators: these are seeded for the call and put back after it. A fault of an image is an item like any other,
    which `TrainingBatches` raises: thrown in a worker, it would arrive wrapped in that worker's traceback. With
    ``skip_unreadable`` another image is taken, which is a function of (seed, number) as well.

    Args:
        dataset: map-style.
        sequence: which image comes when.
        step_size: samples of one optimiser step, for data sets whose patches grow (``gt_sizes``).
    """

    def __init__(self, dataset: Any, sequence: SampleSequence, step_size: int = 1) -> None:
        self.dataset = dataset
        self.sequence = sequence
        self._step_size = step_size
        self._skips = bool(getattr(getattr(dataset, "options", None), "skip_unreadable", False))

    def __getitem__(self, number: int) -> Any:
        try:
            return self._sample(self.sequence.index(number), self.sequence.rng(number), number)
        except (DatasetError, ImageFileError) as error:
            return self._substitute(number, error) if self._skips else error

    def _sample(self, index: int, rng: np.random.Generator, number: int) -> Any:
        if hasattr(self.dataset, "gt_size_at"):
            return self.dataset.sample(index, rng, gt_size=self.dataset.gt_size_at(number // self._step_size))
        if hasattr(self.dataset, "sample"):
            return self.dataset.sample(index, rng)
        return _with_global_generators(self.dataset, index, rng)

    def _substitute(self, number: int, error: ValueError) -> Substituted | DatasetError:
        faults = [str(error)]
        for index, rng in self.sequence.substitutes(number):
            try:
                return Substituted(self._sample(index, rng, number), faults)
            except (DatasetError, ImageFileError) as another:
                faults.append(str(another))
        tried = len(set(faults))
        return DatasetError(f"{tried} images were tried and none can be used, skip_unreadable or not: {faults[0]}")


def _with_global_generators(dataset: Any, index: int, rng: np.random.Generator) -> Any:
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(int(rng.integers(2**63)))
        np.random.seed(int(rng.integers(2**32)))
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        return dataset[index]
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


class _BatchNumbers(Sampler[list[int]]):
    """The numbers of each batch of one process, without end."""

    def __init__(self, batch_size: int, start: int, rank: int, world_size: int) -> None:
        self.batch_size, self.start, self.rank, self.world_size = batch_size, start, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank * self.batch_size
        while True:
            yield list(range(first, first + self.batch_size))
            first += self.batch_size * self.world_size


def _collate(items: list[Any]) -> Any:
    """The batch, or the first fault among its items; with what was skipped, if anything was."""
    fault = next((item for item in items if isinstance(item, ValueError)), None)
    if fault is not None:
        return fault
    faults = [text for item in items if isinstance(item, Substituted) for text in item.faults]
    batch = default_collate([item.content if isinstance(item, Substituted) else item for item in items])
    return Substituted(batch, faults) if faults else batch


class TrainingBatches(Iterator[Any]):
    """The batches of a training loader, without end.

    An image that is skipped is named in the log when it is met first; at the end the log says how often each was met.

    Args:
        loader: from `build_train_loader`.
        finish: applied to every batch in this process, such as the part of a data set that runs on a GPU.
    """

    def __init__(self, loader: DataLoader[Any], finish: Callable[[Any], Any] | None = None) -> None:
        self._batches = iter(loader)
        self._first: Any = None
        self._finish = finish or (lambda batch: batch)
        self.skipped: Counter[str] = Counter()

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            DatasetError, ImageFileError: an image of it cannot be used.
        """
        if self._first is not None:
            batch, self._first = self._first, None
            return batch
        batch = next(self._batches)
        if isinstance(batch, ValueError):
            raise batch
        if not isinstance(batch, Substituted):
            return self._finish(batch)
        for fault in batch.faults:
            if fault not in self.skipped:
                logger.warning("image no. %d that cannot be used is skipped: %s", len(self.skipped) + 1, fault)
            self.skipped[fault] += 1
        return self._finish(batch.content)

    def peek(self) -> Any:
        """The batch that comes next, which stays the next one."""
        self._first = next(self)
        return self._first

    def close(self) -> None:
        """End the workers. They ignore SIGTERM, so left alone they would keep the program from exiting."""
        if self.skipped:
            told = "".join(f"\n  {count} times: {fault}" for fault, count in self.skipped.most_common())
            logger.warning("%d images could not be used and were skipped:%s", len(self.skipped), told)
            self.skipped.clear()
        stop = getattr(self._batches, "_shutdown_workers", None)  # DataLoader has no public way
        if stop is not None:
            stop()


def _begin_worker(modules: tuple[str, ...], worker: int) -> None:
    """Import the user's own modules, which a spawned worker lacks, and leave signals to the training.

    A signal for the whole process group must not take the data away from the iteration being finished.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    import_modules(modules)


def build_train_loader(
    dataset: Any,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    prefetch_factor: int = 2,
) -> DataLoader[Any]:
    """Batches without end: ``{"lq": [B, C, h, w], "gt": [B, C, H, W], "lq_path": [...], "gt_path": [...]}``.

    Take them through `TrainingBatches`, which raises the faults of images.

    The batches of all processes together are the numbers ``start``, ``start`` + 1, ... of the sequence, whatever the
    number of workers; a training that took n samples goes on with ``start=n``.

    Args:
        dataset: map-style; its ``sample(index, rng)`` is used if it has one.
        batch_size: of this process, in one optimiser step.
        seed: of the whole training; the same in every process.
        start: number of the first sample, counted over all processes.
        num_workers: processes that read ahead; 0 reads in this one.
        rank, world_size: which of how many training processes this is.
        pin_memory: page-locked batches, for copies to a GPU.
        prefetch_factor: batches that each worker keeps ready.

    Raises:
        ValueError: a count out of range, or an empty data set.
    """
    if batch_size < 1 or start < 0 or num_workers < 0 or not 0 <= rank < world_size:
        raise ValueError(
            "batch_size must be >= 1, start and num_workers >= 0 and 0 <= rank < world_size, got "
            f"{batch_size}, {start}, {num_workers}, {rank}, {world_size}"
        )
    return DataLoader(
        NumberedSamples(dataset, SampleSequence(len(dataset), seed), batch_size * world_size),
        batch_sampler=_BatchNumbers(batch_size, start, rank, world_size),
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch_factor if num_workers else None,
        collate_fn=_collate,
        worker_init_fn=partial(_begin_worker, imported_modules()),
        # without a generator of its own, DataLoader takes a number from the global one
        generator=torch.Generator().manual_seed(seed),
    )


def build_test_loader(dataset: Any, *, num_workers: int = 0, pin_memory: bool = False) -> DataLoader[Any]:
    """Every image once, whole, in order, as batches of one."""
    return DataLoader(
        dataset,
        batch_size=1,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(0),
    )
