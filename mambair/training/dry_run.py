"""``train.py --check``: everything a training does, once, on the user's own data, leaving nothing behind."""

from __future__ import annotations

import copy
import datetime
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mambair.data import DatasetError
from mambair.data.loader import build_test_loader
from mambair.system.distributed import Processes
from mambair.training.logs import peak_memory_mib, start_logging, stop_logging
from mambair.training.loop import Loop
from mambair.training.rehearsal import FirstImage
from mambair.training.run import RUN_FAILURES, build_loop, describe_processes, fetch_weights, resume_point
from mambair.training.weights_check import require_progress, weight_sums

logger = logging.getLogger(__name__)

TIMED_STEPS = 2
WRITTEN = ("experiments_root", "models", "training_states", "log", "visualization", "tb_logger")


def check(opt: dict[str, Any]) -> int:
    """Open all data, take training steps, validate one image per set, write and read a checkpoint; report to the log.

    Args:
        opt: checked options; not changed. Its folders are not touched.

    Returns:
        0, or 1 if something failed.

    Weights that `path.pretrain_network_g` names are taken from the cache and never fetched.

    Raises:
        SettingError: as `mambair.training.run.train`.
    """
    opt = copy.deepcopy(opt)
    handlers = start_logging(None, is_main=True)
    try:
        point = resume_point(opt, auto_resume=False)
        with tempfile.TemporaryDirectory(prefix="mambair_check_") as folder:
            for key in WRITTEN:
                opt["path"][key] = str(Path(folder) / key)
                Path(opt["path"][key]).mkdir()
            opt["logger"] |= {"use_tb_logger": False, "wandb": None}
            use_gpu = opt.get("num_gpu", "auto") != 0 and torch.cuda.is_available()
            describe_processes(opt, Processes(), use_gpu)
            if point is None:
                fetch_weights(opt, offline=True)
            loop = build_loop(opt, Processes(), point)
            try:
                _try_everything(loop)
            finally:
                loop.close()
        logger.info("check passed: nothing was left behind")
        return 0
    except RUN_FAILURES as error:
        logger.error("check failed: %s", error)
        return 1
    finally:
        stop_logging(handlers)


def _try_everything(loop: Loop) -> None:
    """Steps, validation, checkpoint; each is reported with its time and size."""
    net = getattr(loop.model, "net_g", None)
    if net is not None:
        logger.info("parameters: %s", f"{sum(parameter.numel() for parameter in net.parameters()):,}")
    before = weight_sums(loop.model)
    loop.step(1)  # the first one compiles, allocates and opens files
    began = time.perf_counter()
    for iteration in range(2, 2 + TIMED_STEPS):
        loop.step(iteration)
    require_progress(loop.model, before, 1 + TIMED_STEPS)
    losses = ", ".join(f"{name} {value:.4e}" for name, value in loop.model.get_current_log().items())
    seconds = (time.perf_counter() - began) / TIMED_STEPS
    total = datetime.timedelta(seconds=int(seconds * loop.total))
    logger.info("training: %s; %.3f s/iter, %s for %d iterations", losses, seconds, total, loop.total)
    for loader in loop.validation_loaders:
        began = time.perf_counter()
        first = build_test_loader(FirstImage(loader.dataset))
        loop.model.validation(first, 1, None, False)
        seconds = time.perf_counter() - began
        if loop.opt["val"].get("metrics") and getattr(loop.model, "metric_results", None) == {}:
            raise DatasetError(f"validation of {loader.dataset.opt['name']}: no metric could be measured, see above")
        left = datetime.timedelta(seconds=int(seconds * len(loader.dataset)))
        logger.info("validation: %.3f s for the first of %d images, %s for all", seconds, len(loader.dataset), left)
    loop.model.save(0, 1)
    for path in sorted(Path(loop.opt["path"]["models"]).parent.rglob("*")):
        if path.is_file() and path.stem.endswith("1"):
            logger.info("checkpoint: %s, %.1f MiB", path.name, path.stat().st_size / 2**20)
    logger.info("peak memory: %.0f MiB", peak_memory_mib(loop.model.device))
