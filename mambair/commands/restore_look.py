"""Which network an image goes through, by a quick look at it: what ``--task auto`` does."""

from __future__ import annotations

from typing import NamedTuple

from mambair.folders.plan import Job
from mambair.folders.target_size import TargetSize
from mambair.images.files import ImageFileError, read_encoded
from mambair.inference.quick_look import Look, look_at, task_for
from mambair.system.console import printable
from mambair.weights.packaged import better_weights, default_weights, packaged_degrees

CHOICES = ("sr", "photo", "denoise", "jpeg")


class Choice(NamedTuple):
    """The network for an image.

    Attributes:
        job: of the plan.
        look: at the image; None if it cannot be read, which restoring it reports.
        task: one of ``CHOICES``.
        weights: a packaged file.
        better: a published network that is better, or None.
    """

    job: Job
    look: Look | None
    task: str
    weights: str
    better: str | None

    def line(self, size: TargetSize) -> str:
        """What was seen and what is done, for people."""
        name = printable(self.job.source)
        if self.look is None:
            return f"{name}: cannot be looked at"
        network = self.weights.replace("\\", "/").rpartition("/")[2]
        better = "" if self.better is None else f" (a better network: --weights {self.better})"
        return f"{name}: {self.look}: task {self.task} by {network}, result {size}{better}"


def choose(job: Job, factor: float, *, max_pixels: int, allow_truncated: bool) -> Choice:
    """Look at an image, and choose among the packaged networks.

    Args:
        job: of the plan.
        factor: of enlargement of the result.
        max_pixels, allow_truncated: see ``read_image``; an image that cannot be read is one for "sr".
    """
    try:
        look = look_at(read_encoded(job.source, max_pixels=max_pixels, allow_truncated=allow_truncated))
    except ImageFileError:
        look = None
    available = [task for task in CHOICES if packaged_degrees(task)]
    task = "sr" if look is None else task_for(look, available)
    degree = factor
    if task == "denoise":
        assert look is not None
        noise = look.noise
        degree = min(packaged_degrees(task), key=lambda degree: abs(degree - noise))
    elif task == "jpeg":
        degree = 0
    return Choice(job, look, task, str(default_weights(task, degree)), better_weights(task, degree))
