"""Where the curves and pictures of a training are drawn: TensorBoard, Weights & Biases, or both, as one writer."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mambair.system.tables import first_line, jsonable

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 60  # an unattended training does not wait longer for somebody to log in


class Writer(Protocol):
    """What models of ours and of BasicSR draw with: the part of TensorBoard's SummaryWriter that they call."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str = "HWC") -> None: ...
    def close(self) -> None: ...


class Writers:
    """Several writers as one; one that fails is named in the log and not called again.

    Args:
        writers: by what they are called in the log.
    """

    def __init__(self, writers: Mapping[str, Writer]) -> None:
        self._writers = dict(writers)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Draw a point of the curve ``tag``."""
        self._each("add_scalar", tag, scalar_value, global_step)

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str = "HWC") -> None:
        """Show a picture, uint8 [H, W, C]."""
        self._each("add_image", tag, img_tensor, global_step, dataformats=dataformats)

    def close(self) -> None:
        """Write what is left."""
        self._each("close")

    def _each(self, method: str, *arguments: Any, **named: str) -> None:
        for name, writer in list(self._writers.items()):
            try:
                getattr(writer, method)(*arguments, **named)
            except Exception as error:  # a curve less is no reason to stop a training
                logger.warning("%s fails and is left alone from now on: %s", name, first_line(error))
                del self._writers[name]


class WandbWriter:
    """Draws into a run of Weights & Biases.

    Args:
        library: the module wandb.
        run: what its ``init`` gave.
    """

    def __init__(self, library: Any, run: Any) -> None:
        self._library, self._run = library, run

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._run.log({tag: scalar_value}, step=global_step)

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str = "HWC") -> None:
        self._run.log({tag: self._library.Image(img_tensor)}, step=global_step)

    def close(self) -> None:
        self._run.finish()


def open_writers(opt: Mapping[str, Any], tensorboard_folder: Path) -> Writers | None:
    """The writers that ``logger`` asks for, or None; one that cannot be opened is named in a warning."""
    asked = opt["logger"]
    found = {
        "TensorBoard": open_tensorboard(tensorboard_folder) if asked.get("use_tb_logger") else None,
        "Weights & Biases": open_wandb(opt) if (asked.get("wandb") or {}).get("project") else None,
    }
    writers = {name: writer for name, writer in found.items() if writer is not None}
    return Writers(writers) if writers else None


def open_tensorboard(folder: Path) -> Any | None:
    """A SummaryWriter for ``folder``, or None with one warning where TensorBoard is not installed."""
    if not _is_installed("tensorboard", "use_tb_logger", "TensorBoard", "tensorboard"):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder))


def open_wandb(opt: Mapping[str, Any]) -> WandbWriter | None:
    """A run of ``logger: wandb: project``, its files in the experiment's folder; None with one warning on failure.

    WANDB_MODE and the library's other variables hold; ``offline`` contacts nobody.
    """
    asked = opt["logger"]["wandb"]
    if not _is_installed("wandb", "wandb.project", "wandb", "'mambair[wandb]'"):
        return None
    try:
        import wandb

        run = wandb.init(
            project=asked["project"],
            name=opt["name"],
            id=asked.get("resume_id"),
            resume="allow" if asked.get("resume_id") else None,
            config=jsonable({key: opt.get(key) for key in RECORDED}),
            dir=opt["path"]["experiments_root"],
            settings=wandb.Settings(console="off", login_timeout=LOGIN_SECONDS),
        )
    except Exception as error:  # as in Writers
        logger.warning("Weights & Biases: no run was begun: %s", first_line(error))
        return None
    logger.info("Weights & Biases: run %s; wandb: {resume_id: %s} goes on with it", run.name, run.id)
    return WandbWriter(wandb, run)


# of the options: what was trained and how, and no paths
RECORDED: Sequence[str] = ("name", "model_type", "scale", "manual_seed", "network_g", "network_d", "train")


def _is_installed(module: str, key: str, name: str, package: str) -> bool:
    try:
        found = importlib.util.find_spec(module) is not None
    except ValueError:  # None in sys.modules is Python's way of blocking an import
        found = False
    if not found:
        logger.warning("%s is set, but %s is not installed (pip install %s): no %s log", key, name, package, name)
    return found
