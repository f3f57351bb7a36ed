"""The data of a run as the loop takes it: a stream of training batches, and one loader per validation set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from mambair.data import build_dataset
from mambair.data.loader import TrainingBatches, build_test_loader, build_train_loader
from mambair.options.errors import made_of
from mambair.system.distributed import Processes
from mambair.training.batch_plan import BatchPlan

logger = logging.getLogger(__name__)


def build_batches(
    opt: Mapping[str, Any], plan: BatchPlan, processes: Processes, seed: int, start: int
) -> tuple[TrainingBatches, float]:
    """This process's training batches from iteration ``start + 1`` on, without end.

    Iteration i (from 1) takes the samples (i - 1) x total ... i x total - 1 of the run's one sequence of samples, whose
    every random choice is a function of (seed, sample number): the position in the data is the iteration number.

    Returns:
        The batches, and in how many iterations every image (times ``dataset_enlarge_ratio``) is seen once.
    """
    data_opt = opt["datasets"]["train"]
    with made_of("datasets", "train"):
        dataset = build_dataset(data_opt)
    images = len(dataset) * data_opt.get("dataset_enlarge_ratio", 1)
    logger.info("training data %s: %d images", data_opt.get("name", "train"), len(dataset))
    loader = build_train_loader(
        dataset,
        batch_size=plan.per_process,
        seed=seed,
        start=start * plan.total,
        num_workers=data_opt.get("num_worker_per_gpu", 0),
        rank=processes.rank,
        world_size=processes.world_size,
        pin_memory=data_opt.get("pin_memory", False) and opt["num_gpu"] != 0,
    )
    finish = None
    if hasattr(dataset, "finish_batch"):
        device = torch.device("cuda" if opt["num_gpu"] != 0 and torch.cuda.is_available() else "cpu")
        finish = partial(dataset.finish_batch, device=device)
    return TrainingBatches(loader, finish), images / plan.total


def build_validation_loaders(opt: Mapping[str, Any]) -> list[DataLoader[Any]]:
    """One loader per ``datasets.val*``, image by image in order, as BasicSR's models expect them."""
    loaders: list[DataLoader[Any]] = []
    for label, data_opt in opt["datasets"].items():
        if label.partition("_")[0] == "val":
            with made_of("datasets", label):
                dataset = build_dataset(data_opt)
            logger.info("validation data %s: %d images", data_opt.get("name", label), len(dataset))
            loaders.append(build_test_loader(dataset))
    return loaders
