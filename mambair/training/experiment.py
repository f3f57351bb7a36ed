"""The folder of one training run, laid out as BasicSR lays it out: archived, made, resumed from and pruned here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mambair.options.base_file import merged_text
from mambair.system.atomic_file import atomic_path, is_left_over
from mambair.system.path_gate import Folder, open_folder
from mambair.weights.checkpoint import CheckpointError, read_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """A loadable pair of training state and network weights.

    Attributes:
        iteration: iterations finished when it was written.
        state: what ``model.resume_training`` takes.
        networks: {"g": path of net_g_<iteration>.pth, ...}.
    """

    iteration: int
    state: dict[str, Any]
    networks: dict[str, Path]
    source: Path


def prepare_folders(opt: Mapping[str, Any], option_file: Path | None, *, keep_existing: bool) -> None:
    """Make the experiment's folders and copy the option file there.

    A folder of an earlier run is renamed with a time stamp unless ``keep_existing`` (the run resumes in it).

    Raises:
        UnsafePathError: a folder in the experiment's, to be written to, is a link; that one itself may be.
    """
    root = Path(opt["path"]["experiments_root"])
    stamp = time.strftime("%Y%m%d_%H%M%S")
    if not keep_existing:
        for folder in (root, tensorboard_folder(opt)):
            if folder.exists():
                archived = folder.with_name(f"{folder.name}_archived_{stamp}")
                folder.rename(archived)
                logger.info("%s existed already; it is now %s", folder, archived.name)
    with open_folder(root) as opened:
        made = [Path(opt["path"][key]).name for key in ("models", "training_states", "visualization")]
        for name in [*made, *(["report"] if opened.status("report") else [])]:
            with opened.enter(name, make=True) as folder:
                _clean(folder, deep=name == "visualization")
        _clean(opened, deep=False)
    if option_file is not None and option_file.is_file():
        with atomic_path(root / option_file.name) as temporary:
            temporary.write_bytes(merged_text(option_file))


def _clean(folder: Folder, *, deep: bool) -> None:
    """Remove what a killed process was writing in a folder, and if ``deep`` in those below, which may not be links."""
    for path in list(folder.path.iterdir()):
        if path.is_dir():
            if deep:
                with folder.enter(path.name, make=False) as inner:
                    _clean(inner, deep=True)
        elif is_left_over(path.name):
            folder.remove(path.name)


def tensorboard_folder(opt: Mapping[str, Any]) -> Path:
    """BasicSR's place for TensorBoard's files: tb_logger/<name> beside experiments/."""
    named = opt["path"].get("tb_logger")
    return Path(named) if named else Path(opt["path"]["experiments_root"]).parent.parent / "tb_logger" / opt["name"]


def find_resume_point(opt: Mapping[str, Any], *, auto_resume: bool) -> ResumePoint | None:
    """With ``auto_resume`` the newest loadable state of this experiment, else what ``path.resume_state`` names.

    A newest state that is damaged, or whose weights are, is passed over with a warning for the one before.

    Raises:
        CheckpointError: ``path.resume_state`` cannot be used, or no state of several can be.
    """
    states = list_states(Path(opt["path"]["training_states"])) if auto_resume else []
    for state in reversed(states):
        try:
            return read_resume_point(state, Path(opt["path"]["models"]))
        except CheckpointError as error:
            logger.warning("%s; trying the one before", error)
    if states:
        raise CheckpointError(
            f"none of the {len(states)} training states in {states[0].parent} can be loaded; "
            "start without --auto_resume (the folder is archived), or from weights by path.pretrain_network_g"
        )
    named = opt["path"].get("resume_state")
    if named:
        return read_resume_point(Path(named), Path(opt["path"]["models"]))
    if auto_resume:
        logger.info("--auto_resume: no training state yet, starting from the beginning")
    return None


def list_states(folder: Path) -> list[Path]:
    """The ``<iteration>.state`` files of a folder, oldest first."""
    found = [path for path in folder.glob("*.state") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def read_resume_point(state_path: Path, models: Path) -> ResumePoint:
    """Load a training state, and check that the weights that belong to it can be loaded.

    The weights are looked for in ``models`` beside the state's folder, else in ``models`` of this experiment.

    Raises:
        CheckpointError: with the file and the reason.
    """
    state = _load(state_path)
    if type(state.get("iter")) is not int or state["iter"] < 0:
        raise CheckpointError(f"{state_path} holds no number of iterations under 'iter': it is not a training state")
    beside = state_path.parent.parent / "models"
    folder = beside if beside.is_dir() else models
    networks = {path.name.split("_")[1]: path for path in sorted(folder.glob(f"net_*_{state['iter']}.pth"))}
    if not networks:
        raise CheckpointError(
            f"the weights that belong to {state_path} are missing: {folder}/net_g_{state['iter']}.pth"
        )
    for path in networks.values():
        _load(path)
    return ResumePoint(state["iter"], state, networks, state_path)


def _load(path: Path) -> dict[str, Any]:
    try:
        return read_state(path)
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}") from None
    except CheckpointError as error:
        raise CheckpointError(f"the training cannot continue from {error}") from error


def point_to_weights(opt: dict[str, Any], point: ResumePoint) -> None:
    """Make ``opt`` load the weights of a resume point in place of its pre-trained ones, as BasicSR does."""
    for label, path in point.networks.items():
        opt["path"][f"pretrain_network_{label}"] = str(path)
        opt["path"][f"param_key_{label}"] = "params"
        opt["path"][f"strict_load_{label}"] = True


def prune_checkpoints(opt: Mapping[str, Any], keep: int | None) -> None:
    """Delete all but the newest ``keep`` training states and their weights; None keeps everything.

    The state goes first: weights without a state are never resumed from, a state without weights would be tried.
    """
    if keep is None:
        return
    for state in list_states(Path(opt["path"]["training_states"]))[: -max(keep, 1)]:
        state.unlink(missing_ok=True)
        for weights in Path(opt["path"]["models"]).glob(f"net_*_{state.stem}.pth"):
            weights.unlink(missing_ok=True)
