"""The training loop around any model that speaks BasicSR's model protocol."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mambair.data import DatasetError
from mambair.data.loader import TrainingBatches
from mambair.images.decoded_image import DecodedImage, ImageFileError
from mambair.images.files import write_image
from mambair.models.basicsr_models import report_validation
from mambair.models.restoration_model import RestorationModel
from mambair.system.distributed import Processes
from mambair.training.experiment import prune_checkpoints
from mambair.training.logs import RunLog, Stopwatch, peak_memory_mib
from mambair.training.report import write_report
from mambair.training.sample_pictures import grid, samples
from mambair.training.seeding import seed_everything
from mambair.training.signals import GracefulShutdown
from mambair.training.weights_check import require_finite, require_progress, weight_sums
from mambair.weights.checkpoint import CheckpointWriteError

logger = logging.getLogger(__name__)

PICTURES = 4  # of each validation set, in a grid


class Model(Protocol):
    """The part of BasicSR's model protocol that the loop uses."""

    device: torch.device

    def feed_data(self, data: Any) -> None: ...
    def optimize_parameters(self, current_iter: int) -> None: ...
    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None: ...
    def get_current_learning_rate(self) -> list[float]: ...
    def test(self) -> None: ...
    def get_current_visuals(self) -> Mapping[str, Tensor]: ...
    def get_current_log(self) -> Mapping[str, float]: ...
    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None: ...
    def save(self, epoch: int, current_iter: int) -> None: ...
    def save_training_state(self, epoch: int, current_iter: int) -> None: ...
    def resume_training(self, resume_state: Any) -> None: ...


@dataclass
class Loop:
    """Runs iterations ``start + 1`` to ``train: total_iter``.

    Attributes:
        opt: checked options.
        model: what is trained.
        batches: one batch per iteration, beginning with that of iteration ``start + 1``.
        validation_loaders: what ``model.validation`` takes, one for each data set.
        run_log: where progress goes.
        processes: this process and the others.
        start: iterations done before.
        seed: of the whole run.
        epoch_iterations: iterations in which every image is seen once (may be a fraction), for the log.
    """

    opt: Mapping[str, Any]
    model: Model
    batches: TrainingBatches
    validation_loaders: Sequence[Any]
    run_log: RunLog
    processes: Processes
    start: int
    seed: int
    epoch_iterations: float

    def __post_init__(self) -> None:
        self.total = int(self.opt["train"]["total_iter"])
        self.stopwatch = Stopwatch()
        self._validated_at = -1
        self._saved_at = self.start

    def run(self, interruption: GracefulShutdown) -> bool:
        """Train until the end or until a signal asks to stop; both save. Returns whether the end was reached.

        Raises:
            CheckpointWriteError: the disk is full or not writable.
            DatasetError, ImageFileError: an image that cannot be used; what was reached is saved.
            TrainingDiverged: the loss stayed non-finite (RestorationModel), or the weights are, or did not change.
        """
        before = weight_sums(self.model)
        every = self.opt["logger"]
        validate_every = self.opt["val"].get("val_freq") if self.validation_loaders else None
        self.stopwatch.reset()
        for iteration in range(self.start + 1, self.total + 1):
            try:
                self.step(iteration)
            except (DatasetError, ImageFileError):
                self._save_before_failing(iteration - 1)
                raise
            if iteration % every["print_freq"] == 0 or iteration == self.total:
                self.report(iteration)
            stopping = self.processes.any_true(interruption.requested)
            if stopping or iteration == self.total or iteration % every["save_checkpoint_freq"] == 0:
                self.save(iteration)
            if validate_every and iteration % validate_every == 0 and not stopping:
                self.validate(iteration)
                stopping = self.processes.any_true(interruption.requested)
            if stopping and iteration < self.total:
                if self._saved_at != iteration:
                    self.save(iteration)
                return False
        require_progress(self.model, before, self.total - self.start)
        return True

    def finish(self) -> None:
        """After the last iteration: weights under the name ``latest``, their validation, and a report."""
        self._write(-1, -1)
        if self._validated_at != self.total:
            self.validate(self.total)
        if self.processes.is_main:
            logger.info("report: %s", write_report(self.opt, self.model, self.validation_loaders))

    def close(self) -> None:
        """End what runs or is open beside the loop: the data workers and the logs."""
        self.batches.close()
        self.run_log.close()

    def step(self, iteration: int) -> None:
        """One iteration: data, learning rate, optimiser step."""
        asked = time.perf_counter()
        batch = next(self.batches)
        waited = time.perf_counter() - asked
        seed_everything(self.seed, iteration, self.processes.rank)
        self.model.update_learning_rate(iteration, warmup_iter=self.opt["train"].get("warmup_iter", -1))
        self.model.feed_data(batch)
        self.model.optimize_parameters(iteration)
        self.stopwatch.iteration_done(waited)

    def report(self, iteration: int) -> None:
        """The progress line; every process takes part in averaging the losses."""
        losses = dict(self.model.get_current_log())
        seconds, waited = self.stopwatch.means()
        if self.processes.is_main:
            rates = self.model.get_current_learning_rate()
            memory = peak_memory_mib(self.model.device)
            self.run_log.report(iteration, self.epoch(iteration), losses, rates, seconds, waited, memory)
        self.stopwatch.reset()

    def epoch(self, iteration: int) -> int:
        """How often every image has been seen."""
        return int((iteration - 1) / self.epoch_iterations)

    def save(self, iteration: int) -> None:
        """Write a checkpoint that can be resumed from, and delete the oldest beyond ``logger: keep_checkpoints``."""
        self._write(self.epoch(iteration), iteration)
        if self.processes.is_main:
            prune_checkpoints(self.opt, self.opt["logger"].get("keep_checkpoints"))
            logger.info("checkpoint of iteration %d written", iteration)
        self._saved_at = iteration
        self.stopwatch.reset()

    def _save_before_failing(self, done: int) -> None:
        """Keep what was reached when an image cannot be used; only alone, as others would wait for this process."""
        if done > self._saved_at and not self.processes.distributed:
            self.save(done)

    def _write(self, epoch: int, iteration: int, *, weights: bool = True) -> None:
        require_finite(weight_sums(self.model))
        write = self.model.save if weights else self.model.save_training_state
        try:
            write(epoch, iteration)
        except (OSError, RuntimeError) as error:
            raise CheckpointWriteError(
                f"the checkpoint of iteration {iteration} could not be written ({error}); is the disk full? "
                f"The newest complete one is that of iteration {self._saved_at}; make room and go on with --auto_resume"
            ) from error

    def _draw_samples(self, dataset: Any, iteration: int) -> None:
        """A grid to look at: a file, and pictures beside the curves."""
        pictures = list(samples(self.model, dataset, PICTURES))
        if not pictures:
            return
        folder = Path(self.opt["path"]["visualization"])
        path = folder / "grids" / f"{dataset.opt['name']}_{iteration}.png"
        try:
            write_image(path, DecodedImage(grid(pictures)), within=folder)
        except OSError as error:  # a picture less is no reason to stop a training
            logger.warning("%s: not written (%s)", path, error)
        if self.run_log.curves is not None:
            for number, picture in enumerate(pictures):
                label = f"{dataset.opt['name']}/{number}"
                self.run_log.curves.add_image(label, picture, iteration, dataformats="HWC")

    def validate(self, iteration: int) -> None:
        """Validate on every data set; the log, curves and a grid of pictures tell the outcome."""
        for loader in self.validation_loaders:
            save_images = self.opt["val"].get("save_img", False)
            self.model.validation(loader, iteration, self.run_log.curves, save_images)
            if not isinstance(self.model, RestorationModel) and self.processes.is_main:
                report_validation(self.model, loader.dataset.opt["name"], iteration)
            if self.processes.is_main:
                metrics = dict(getattr(self.model, "metric_results", {}))
                name = loader.dataset.opt["name"]
                baseline = getattr(self.model, "baselines", {}).get(name)
                self.run_log.record_validation(iteration, name, metrics, baseline)
                self._draw_samples(loader.dataset, iteration)
        self.processes.barrier()
        self._validated_at = iteration
        if self._saved_at == iteration:
            # saved before, lest a validation that fails costs the iterations; now the best values belong into it
            self._write(self.epoch(iteration), iteration, weights=False)
        self.stopwatch.reset()
