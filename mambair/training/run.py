"""From a checked option dictionary to a finished training run: processes, folders, data, model, loop, exit code."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mambair.data import DatasetError
from mambair.images.decoded_image import ImageFileError
from mambair.models import RestorationModel, build_model
from mambair.models.basicsr_models import recall_best
from mambair.models.nonfinite_guard import TrainingDiverged
from mambair.options.errors import SettingError, made_of
from mambair.system.distributed import Processes, start_processes
from mambair.system.download import download_bar
from mambair.system.jsonl import AppendError
from mambair.system.path_gate import UnsafePathError
from mambair.training.batch_plan import BatchPlan, plan_batch
from mambair.training.batches import build_batches, build_validation_loaders
from mambair.training.experiment import (
    ResumePoint,
    find_resume_point,
    point_to_weights,
    prepare_folders,
    tensorboard_folder,
)
from mambair.training.logs import RunLog, hold_log, start_logging, stop_logging
from mambair.training.loop import Loop
from mambair.training.rehearsal import rehearse
from mambair.training.report import read_records
from mambair.training.seeding import seed_everything
from mambair.training.signals import GracefulShutdown
from mambair.training.writers import open_writers
from mambair.weights.checkpoint import CheckpointWriteError
from mambair.weights.fetch import NamedProgress, locate, silent

logger = logging.getLogger(__name__)

# what ends a run that had begun
RUN_FAILURES = (CheckpointWriteError, DatasetError, ImageFileError, TrainingDiverged)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def train(
    opt: dict[str, Any],
    *,
    option_file: Path | None = None,
    auto_resume: bool = False,
    launcher: str = "none",
    offline: bool = False,
) -> int:
    """Run (or go on with) the training that ``opt`` describes.

    Args:
        opt: checked options, as `mambair.options.load_options` returns them; not changed.
        option_file: copied into the experiment's folder.
        auto_resume: go on from the newest loadable state of this experiment, if there is one.
        launcher: "slurm" reads the group of processes from slurm's variables, otherwise torchrun's count.
        offline: take weights that are given by name from the cache only.

    Returns:
        The exit code: 0 finished, 1 stopped by a failure that the log explains, 129, 130 or 143 ended by a signal.

    Raises:
        SettingError: options that only show to be wrong when something is made of them; nothing was written.
    """
    opt = copy.deepcopy(opt)
    use_gpu = opt.get("num_gpu", "auto") != 0 and torch.cuda.is_available()
    with made_of():
        processes = start_processes(use_gpu, launcher=launcher)
    handlers = start_logging(None, is_main=processes.is_main)
    held = hold_log() if processes.is_main else None

    def begin_writing() -> None:
        with made_of("path", "experiments_root"):
            if processes.is_main:
                prepare_folders(opt, option_file, keep_existing=point is not None)
            processes.barrier()
            log_file = Path(opt["path"]["log"]) / f"train_{opt['name']}_{time.strftime('%Y%m%d_%H%M%S')}.log"
            handlers.extend(start_logging(log_file, is_main=processes.is_main, held=held))

    try:
        describe_processes(opt, processes, use_gpu)
        point = resume_point(opt, auto_resume=auto_resume)
        if point is None:  # which brings its own weights
            progress = download_bar if processes.is_main else silent
            fetch_weights(opt, offline=offline or None, progress=progress)
        loop = build_loop(opt, processes, point, begin_writing)
        try:
            return run_to_exit_code(loop)
        finally:
            loop.close()
    finally:
        stop_logging([*handlers, *([held] if held else [])])
        processes.close()


def resume_point(opt: Mapping[str, Any], *, auto_resume: bool) -> ResumePoint | None:
    """The state to go on from, see `find_resume_point`.

    Raises:
        SettingError: it cannot be used.
    """
    with made_of(*(() if auto_resume else ("path", "resume_state"))):
        return find_resume_point(opt, auto_resume=auto_resume)


def fetch_weights(opt: Mapping[str, Any], *, offline: bool | None = None, progress: NamedProgress = silent) -> None:
    """Put files in place of the names of published weights in ``opt``, see `mambair.weights.fetch.locate`.

    Raises:
        SettingError: weights that are neither here nor to be had.
    """
    for key in ("pretrain_network_g", "pretrain_network_d", "pretrain_network_g_teacher"):
        if opt["path"].get(key):
            with made_of("path", key):
                opt["path"][key] = str(locate(opt["path"][key], offline=offline, progress=progress))


def describe_processes(opt: dict[str, Any], processes: Processes, use_gpu: bool) -> None:
    """Put the resolved device and this process's place into ``opt``, in BasicSR's keys, which models read."""
    asked = opt.get("num_gpu", "auto")
    if isinstance(asked, int) and asked > 1 and asked != processes.world_size:
        logger.warning(
            "num_gpu: %d, but this is 1 of %d process(es), and each uses one GPU; start with "
            "torchrun --nproc_per_node=%d mambair/train.py ... to use %d",
            asked,
            processes.world_size,
            asked,
            asked,
        )
    if isinstance(asked, int) and asked > 0 and not use_gpu:
        logger.warning("num_gpu: %d, but torch finds no CUDA GPU: training on the CPU", asked)
    opt["num_gpu"] = 1 if use_gpu else 0
    opt["dist"] = processes.distributed
    opt["rank"], opt["world_size"], opt["local_rank"] = processes.rank, processes.world_size, processes.local_rank


def build_loop(
    opt: dict[str, Any],
    processes: Processes,
    point: ResumePoint | None = None,
    begin_writing: Callable[[], None] = lambda: None,
) -> Loop:
    """Data, model and logs of a run, at its beginning or at ``point``; ``opt`` gets the seed and passes in use.

    Args:
        begin_writing: called when all is built and tried, before the logs are opened.

    Raises:
        SettingError: see `train`.
    """
    start, state = (point.iteration, point.state) if point else (0, {})
    seed = opt["manual_seed"] if state.get("seed") is None else state["seed"]
    with made_of("datasets", "train", "total_batch_size"):
        plan = plan_batch(opt, processes.world_size)
    opt["manual_seed"], opt["train"]["accumulation"] = seed, plan.passes
    logger.info("torch %s, %d thread(s), seed %d", torch.__version__, torch.get_num_threads(), seed)
    logger.info("batch: %s", plan)
    with contextlib.ExitStack() as stack:
        batches, epoch_iterations = build_batches(opt, plan, processes, seed, start)
        stack.callback(batches.close)
        validation_loaders = build_validation_loaders(opt)
        if point:
            point_to_weights(opt, point)
        if processes.is_main:
            seed_everything(seed, 0, 0)
            with made_of("datasets", "train"):
                first = batches.peek()
            with _weights_of(point):
                rehearse(opt, first, validation_loaders)
        seed_everything(seed, 0, 0)  # the same first weights in every process
        with _weights_of(point):
            model = build_model(copy.deepcopy(opt))
        if point:
            with made_of("path", "resume_state"):
                model.resume_training(state)
            if not isinstance(model, RestorationModel) and opt["val"].get("metrics"):
                records = read_records(Path(opt["path"]["experiments_root"]) / "metrics.jsonl")
                done = [record for record in records if "validation" in record and record["iter"] <= start]
                names = [loader.dataset.opt["name"] for loader in validation_loaders]
                recall_best(model, names, opt["val"]["metrics"], done)
            logger.info("going on from %s, iteration %d", point.source, start)
        begin_writing()
        run_log = open_run_log(opt, plan, processes)
        stack.pop_all()
    return Loop(opt, model, batches, validation_loaders, run_log, processes, start, seed, epoch_iterations)


@contextlib.contextmanager
def _weights_of(point: ResumePoint | None) -> Iterator[None]:
    """Name the training state where the weights that belong to it are at fault."""
    try:
        yield
    except SettingError as error:
        if point is None or error.key != ("path", "pretrain_network_g"):
            raise
        raise SettingError(("path", "resume_state"), f"{point.source}: {error.reason}") from error


def open_run_log(opt: dict[str, Any], plan: BatchPlan, processes: Processes) -> RunLog:
    """Where this process's progress goes: the main one writes metrics.jsonl and, if asked to, draws curves."""
    total, curves, metrics_file = int(opt["train"]["total_iter"]), None, None
    if processes.is_main:
        metrics_file = Path(opt["path"]["experiments_root"]) / "metrics.jsonl"
        curves = open_writers(opt, tensorboard_folder(opt))
    return RunLog(opt["name"], total, plan.total, metrics_file, curves)


def run_to_exit_code(loop: Loop) -> int:
    """Run the loop under signal handling and say in the log how it ended."""
    if loop.start >= loop.total:
        logger.info("nothing to do: iteration %d of train: total_iter: %d is done", loop.start, loop.total)
        return 0
    began = time.monotonic()
    with GracefulShutdown() as interruption:
        try:
            finished = loop.run(interruption)
            if finished:
                loop.finish()
        except RUN_FAILURES as error:
            logger.error("training stopped: %s", error)
            return 1
        except OSError as error:
            if error.errno not in DISK_FULL and not isinstance(error, AppendError | UnsafePathError):
                raise
            advice = "make room and" if error.errno in DISK_FULL else "then"
            logger.error("training stopped: %s; %s go on with --auto_resume", error, advice)
            return 1
    if not finished:
        logger.warning(
            "stopped by %s; the state is saved. Go on with the same command and --auto_resume",
            interruption.signal_name,
        )
        return interruption.exit_code
    logger.info("training finished after %.0f s; weights: %s", time.monotonic() - began, loop.opt["path"]["models"])
    return 0
