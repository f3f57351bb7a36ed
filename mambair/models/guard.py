"""The guard against non-finite losses and gradients: such a step is skipped, and too many in a row end the training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss or its gradient was not finite too many times in a row."""


class NonFiniteGuard:
    """Counts skipped steps.

    Args:
        limit: so many skipped steps in a row raise `TrainingDiverged`.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.total = 0

    def step_taken(self) -> None:
        """A finite step ends the row."""
        self.in_a_row = 0

    def step_skipped(self, iteration: int, losses: dict[str, float], files: Sequence[str]) -> None:
        """Log a skipped step.

        Raises:
            TrainingDiverged: it was the last one allowed.
        """
        self.in_a_row += 1
        self.total += 1
        values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        told = ", ".join(files) if files else "unknown files"
        message = f"iteration {iteration}: the loss or its gradient is not finite ({values}) for {told}"
        if self.in_a_row >= self.limit:
            raise TrainingDiverged(
                f"{message}; that was {self.in_a_row} steps in a row. The weights are those before them. Lower the "
                "learning rate, set train: grad_clip, look at these images, and go on from the last checkpoint"
            )
        logger.warning("%s; step skipped (%d in a row, at most %d)", message, self.in_a_row, self.limit - 1)
