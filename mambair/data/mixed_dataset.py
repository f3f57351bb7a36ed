"""Several data sets in one, each with its share of the samples: several tasks for one network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mambair.data.dataset_options import MixedOptions
from mambair.data.pairing import DatasetError
from mambair.data.restoration_dataset import RestorationDataset, Sample, validated
from mambair.registry import DATASET_REGISTRY

# what every sample of every member has
_KEYS = ("lq", "gt", "lq_path", "gt_path")


@DATASET_REGISTRY.register()
class MixedDataset(Dataset[Sample]):
    """The samples of several data sets in fixed shares.

    Its length is the least at which every image of every member occurs: a member with a share of s and n images fills
    s of the length, each image as often as the others or once more. An epoch of the shuffled sequence has these shares
    exactly, and a sample depends on the seed and its number alone.

    Args:
        opt: ``datasets``, a list of data sets of this project, and ``weights``.

    Raises:
        DatasetError: listing every fault of the members, or a member that does not fit the others.
    """

    Options = MixedOptions

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: MixedOptions = validated(MixedOptions, opt)
        shared = {"phase": self.options.phase, "scale": self.options.scale}
        self.members = [_member({**shared, **each}, number) for number, each in enumerate(self.options.datasets)]
        self._check_members()
        lengths = [len(member) for member in self.members]
        weights = np.array(self.options.weights or lengths, dtype=np.float64)
        shares = weights / weights.sum()
        total = max(length / share for length, share in zip(lengths, shares, strict=True))
        counts = [math.ceil(total * share - 1e-6) for share in shares]
        self._ends = np.cumsum(counts)

    @classmethod
    def check(cls, opt: dict[str, Any]) -> list[str]:
        """Faults of the members, as ``datasets: number n: key: what is wrong``; empty if there are none."""
        try:
            dataset = cls(opt)
        except DatasetError as error:
            return error.faults
        return [
            f"datasets: number {number}: {fault}"
            for number, member in enumerate(dataset.members)
            for fault in type(member).check(member.opt)
        ]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``. In phase ``train`` it is a different patch at every call; ``sample`` gives control."""
        return self.sample(index, np.random.default_rng(None if self.options.phase == "train" else index))

    def sample(self, index: int, rng: np.random.Generator, *, gt_size: int | None = None) -> Sample:
        """One sample, of the member that ``index`` belongs to; as `RestorationDataset.sample`."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        member, place = self.members[number], index - (int(self._ends[number - 1]) if number else 0)
        sample = member.sample(place % len(member), rng, gt_size=gt_size)
        return {key: sample[key] for key in _KEYS} | {"degradation": sample.get("degradation", "")}

    def gt_size_at(self, iteration: int) -> int | None:
        """Side of the patches in optimiser step ``iteration``, the same in all members."""
        return self.members[0].gt_size_at(iteration)

    def _check_members(self) -> None:
        plans = [(member.options.gt_size, member.options.gt_sizes, member.options.iters) for member in self.members]
        colors = [member.options.color == "rgb" for member in self.members]
        for number, member in enumerate(self.members):
            if plans[number] != plans[0] and self.options.phase == "train":
                raise DatasetError(f"datasets: number {number}: gt_size, gt_sizes and iters must be those of number 0")
            if colors[number] != colors[0]:
                raise DatasetError(f"datasets: number {number}: color: has another number of channels than number 0")
            if getattr(member.options, "degrade_on", "workers") != "workers":
                raise DatasetError(f"datasets: number {number}: degrade_on: must be workers in a mixture")
            if getattr(member.options, "gan_gt_usm", None) is not None:
                raise DatasetError(f"datasets: number {number}: gan_gt_usm: a mixture has one target; use gt_usm")


def _member(opt: dict[str, Any], number: int) -> RestorationDataset:
    try:
        dataset = DATASET_REGISTRY.get(opt["type"])
        if not (isinstance(dataset, type) and issubclass(dataset, RestorationDataset)):
            raise DatasetError(f"type: {opt['type']} cannot be part of a mixture")
        return dataset(opt)
    except KeyError as error:
        raise DatasetError(f"datasets: number {number}: type: {error.args[0]}") from None
    except DatasetError as error:
        raise DatasetError([f"datasets: number {number}: {fault}" for fault in error.faults]) from None
