"""The guard against non-finite losses and gradients: such a step is skipped, and too many in a row end the training."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mambair.system.atomic_file import atomic_path

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss or its gradient was not finite too many times in a row."""


class NonFiniteGuard:
    """Counts skipped steps and writes down what they were made of.

    Args:
        limit: so many skipped steps in a row raise `TrainingDiverged`.
        folder: where ``nonfinite_iter<n>_rank<r>.json`` is written for inspection; None writes nothing.
        origin: what the random state of an iteration is a function of (seed, rank); written beside the file names.
    """

    def __init__(self, limit: int, folder: Path | None, origin: Mapping[str, Any]) -> None:
        self.limit = limit
        self.folder = folder
        self.origin = dict(origin)
        self.in_a_row = 0
        self.total = 0

    def step_taken(self) -> None:
        """A finite step ends the row."""
        self.in_a_row = 0

    def step_skipped(self, iteration: int, losses: Mapping[str, float], files: Sequence[str]) -> None:
        """Log a skipped step and write its batch down.

        Raises:
            TrainingDiverged: it was the last one allowed.
        """
        self.in_a_row += 1
        self.total += 1
        written = self._write(iteration, losses, files)
        values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        message = f"iteration {iteration}: the loss or its gradient is not finite ({values}); its batch: {written}"
        if self.in_a_row >= self.limit:
            raise TrainingDiverged(
                f"{message}; that was {self.in_a_row} steps in a row. The weights are those before them. Lower the "
                "learning rate, set train: grad_clip, look at these images, and go on from the last checkpoint"
            )
        logger.warning("%s; step skipped (%d in a row, at most %d)", message, self.in_a_row, self.limit - 1)

    def scale_lowered(self, iteration: int, scale: float) -> None:
        """A finite loss whose scaled gradient left the range of fp16: part of finding the scale, so nothing is written.

        Raises:
            TrainingDiverged: it was the last one allowed.
        """
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row >= self.limit:
            raise TrainingDiverged(
                f"iteration {iteration}: the gradient is not finite in fp16, {self.in_a_row} steps in a row, even with "
                f"the loss scaled by {scale:g}. The weights are those before them. Use train: amp: bf16 or off"
            )
        logger.info("iteration %d: gradients overflow in fp16; step skipped, loss scale now %g", iteration, scale)

    def _write(self, iteration: int, losses: Mapping[str, float], files: Sequence[str]) -> str:
        """Write the record of a batch; returns where, or the files themselves where there is no folder."""
        if self.folder is None:
            return ", ".join(files) or "unknown files"
        path = self.folder / f"nonfinite_iter{iteration}_rank{self.origin.get('rank', 0)}.json"
        record = {
            "iteration": iteration,
            **self.origin,
            "random_state": "mambair.training.seeding.seed_everything(seed, iteration, rank) restores it",
            "losses": {name: str(value) for name, value in losses.items()},
            "files": list(files),
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return str(path)
