"""From the path of an option file to the dictionary the engine runs, or to one error that lists every fault."""

from __future__ import annotations

import logging
import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambair.options.adversarial import check_adversarial
from mambair.options.agreement import check_agreement
from mambair.options.base_file import read_option_file
from mambair.options.compat import BASICSR_ONLY, IGNORED, Dropped
from mambair.options.components import check_metrics, check_network, check_train_parts, look_up_name
from mambair.options.datasets import check_datasets, move_top_level_keys, settle_batch_size
from mambair.options.errors import FaultList, KeyPath, SettingError
from mambair.options.overrides import apply_overrides
from mambair.options.paths import check_plain_name, complete_paths, resolve, resolve_weights
from mambair.options.pydantic_errors import validate
from mambair.options.schema import Options
from mambair.registry import MODEL_REGISTRY

logger = logging.getLogger(__name__)


def load_options(
    path: str | Path, *, is_train: bool, overrides: Sequence[str] = (), check_paths: bool = True
) -> dict[str, Any]:
    """Read and check an option file; nothing is started, made or written.

    Args:
        path: a YAML file in BasicSR's vocabulary (docs/options.md).
        is_train: for train.py, or else for test.py.
        overrides: ``key:key=value`` each, as ``--force_yml`` takes them.
        check_paths: False accepts data folders and weights that are not there.

    Returns:
        A plain nested dictionary with all defaults, absolute paths and the folders to write under ``path``.

    Raises:
        OptionsError: listing all faults, one a line: ``file:line: key: what was found; what is right``.
    """
    file = read_option_file(path)
    apply_overrides(file, overrides)
    data, faults, dropped = file.data, FaultList(file.places, f"{file.name}:1"), Dropped()
    _refuse_module_folders(data, (), faults)
    if isinstance(data.get("scale"), float) and data["scale"].is_integer():
        data["scale"] = int(data["scale"])
    is_foreign = _names_foreign_model(data, faults)
    aside = _set_aside(data, dropped, is_foreign=is_foreign)
    check_network(data, faults, dropped, is_train=is_train)
    if is_train:
        check_train_parts(data.get("train"), faults)
    if not is_foreign and isinstance(data.get("model_type"), str) and data["model_type"] in MODEL_REGISTRY:
        check_adversarial(data, faults, is_train=is_train)
    check_metrics(data.get("val"), ("val",), faults)
    move_top_level_keys(data, file.places, faults)
    datasets = check_datasets(data, faults, dropped, is_train=is_train, check_paths=check_paths)
    check_agreement(data, faults, is_train=is_train, is_foreign=is_foreign)
    opt = validate(Options, data, (), faults)
    _check_names(data, faults)
    if opt is not None:
        complete_paths(opt, faults, is_train=is_train)
        weights = ("pretrain_network_g", "pretrain_network_d", "pretrain_network_g_teacher")
        for key, follow in (*((key, resolve_weights) for key in weights), ("resume_state", resolve)):
            if opt["path"][key] is not None:
                opt["path"][key] = follow(opt["path"][key], ("path", key), faults, check=check_paths)
    faults.raise_if_any()
    assert opt is not None, "without faults there is a result"
    dropped.warn(file.name)
    _put_back(opt, aside)
    opt["datasets"] = datasets
    opt["is_train"] = is_train
    return _settled(opt)


def _refuse_module_folders(value: object, path: KeyPath, faults: FaultList) -> None:
    """Refuse ``sys_path`` anywhere, by which BasicSR imports modules from a folder that the file names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if key == "sys_path":
            faults.add((*path, key), "an option file names no folder to import from; delete this key")
        _refuse_module_folders(each, (*path, key), faults)


def with_place(error: SettingError, path: str | Path, overrides: Sequence[str] = ()) -> str:
    """The message of an error beyond the file, in the form of `OptionsError`: ``file:line: key: what is wrong``."""
    file = read_option_file(path)
    apply_overrides(file, overrides)
    place = FaultList(file.places, f"{file.name}:1").place(error.key) if error.key else file.name
    return f"{place}: {error}"


def _check_names(data: dict[str, Any], faults: FaultList) -> None:
    """Check the texts that become names of folders, files and columns; those of data sets are `check_datasets`'s."""
    check_plain_name(data.get("name"), ("name",), faults)
    val = data.get("val")
    if isinstance(val, dict):
        if val.get("suffix"):
            check_plain_name(val["suffix"], ("val", "suffix"), faults, kind="part of a file name")
        for label in val["metrics"] if isinstance(val.get("metrics"), dict) else ():
            check_plain_name(label, ("val", "metrics", label), faults, kind="name")


def _settled(opt: dict[str, Any]) -> dict[str, Any]:
    """Fix what the file leaves open: the total batch size, the seed and, for testing, the number of GPUs."""
    import torch

    if opt["is_train"]:
        settle_batch_size(opt)
    else:
        available = torch.cuda.device_count()
        opt["num_gpu"] = min(available, 1 if opt["num_gpu"] == "auto" else opt["num_gpu"])
    if opt["manual_seed"] is None:
        opt["manual_seed"] = _drawn_seed()
        logger.info("manual_seed: %d (drawn; write it into the option file to repeat this run)", opt["manual_seed"])
    return opt


def _drawn_seed() -> int:
    """A seed by chance; processes of one training, which cannot ask each other yet, get the same from their launch."""
    launch = [os.environ.get(key, "") for key in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")]
    if any(launch):
        return zlib.crc32(":".join(launch).encode())
    return secrets.randbelow(2**31)


def _names_foreign_model(data: dict[str, Any], faults: FaultList) -> bool:
    """Whether ``model_type`` is one of basicsr's; a fault when it is nobody's."""
    name = data.get("model_type")
    if not isinstance(name, str) or look_up_name(MODEL_REGISTRY, name, ("model_type",), faults) is None:
        return False
    return not MODEL_REGISTRY.is_ours(name)


def _set_aside(data: dict[str, Any], dropped: Dropped, *, is_foreign: bool) -> dict[str, dict[str, Any]]:
    """Take out the keys our schema does not hold: returned if a model of basicsr reads them, dropped otherwise."""
    aside: dict[str, dict[str, Any]] = {}
    for label in ("", "path", "train", "val"):
        section = data.get(label) if label else data
        if not isinstance(section, dict):
            continue
        if is_foreign:
            keys = [key for key in section if key in BASICSR_ONLY[label]]
            aside[label] = {key: section.pop(key) for key in keys}
        dropped.take_out(section, (label,) if label else (), IGNORED.get(label, frozenset()))
    return aside


def _put_back(opt: dict[str, Any], aside: dict[str, dict[str, Any]]) -> None:
    for label, keys in aside.items():
        section = opt[label] if label else opt
        for key in BASICSR_ONLY[label]:  # basicsr asks whether a key is there, not whether it says something
            section.pop(key, None)
        section.update(keys)
