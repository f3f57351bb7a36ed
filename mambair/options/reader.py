"""From the path of an option file to the dictionary the engine runs, or to one error that lists every fault."""

from __future__ import annotations

import logging
import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambair.options.compat import BASICSR_ONLY, IGNORED, Dropped
from mambair.options.components import check_metrics, check_network, check_train_parts, look_up_name
from mambair.options.datasets import check_datasets, move_top_level_keys, settle_batch_size
from mambair.options.errors import FaultList, dotted
from mambair.options.overrides import apply_overrides
from mambair.options.paths import check_plain_name, complete_paths, resolve, resolve_weights
from mambair.options.pydantic_errors import validate
from mambair.options.schema import Options
from mambair.options.yaml_reader import read_option_file
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
    is_foreign = _names_foreign_model(data, faults)
    aside = _set_aside(data, dropped, is_foreign=is_foreign)
    check_network(data, faults, dropped)
    if is_train:
        check_train_parts(data.get("train"), faults)
    check_metrics(data.get("val"), ("val",), faults)
    move_top_level_keys(data, file.places, faults)
    datasets = check_datasets(data, faults, dropped, is_train=is_train, check_paths=check_paths)
    _check_sections_agree(data, faults, is_train=is_train, is_foreign=is_foreign)
    opt = validate(Options, data, (), faults)
    _check_names(data, faults)
    if opt is not None:
        complete_paths(opt, faults, is_train=is_train)
        for key, follow in (("pretrain_network_g", resolve_weights), ("resume_state", resolve)):
            if opt["path"][key] is not None:
                opt["path"][key] = follow(opt["path"][key], ("path", key), faults, check=check_paths)
    faults.raise_if_any()
    assert opt is not None, "without faults there is a result"
    dropped.warn(file.name)
    _put_back(opt, aside)
    opt["datasets"] = datasets
    opt["is_train"] = is_train
    return _settled(opt)


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
    for label in ("", "path", "train", "val", "logger"):
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
        section.update(keys)


def _check_sections_agree(data: dict[str, Any], faults: FaultList, *, is_train: bool, is_foreign: bool) -> None:
    """What one section promises and another does not keep, or needs and another does not give."""
    sections = {
        key: data[key] if isinstance(data.get(key), dict) else {} for key in ("path", "train", "val", "datasets")
    }
    train, val = sections["train"], sections["val"]
    if data.get("network_g") is None and (is_train or is_foreign or not sections["path"].get("pretrain_network_g")):
        hint = "" if is_train or is_foreign else " (or path.pretrain_network_g, to take it from the weights)"
        faults.add(("network_g",), f"this required section is missing{hint}")
    tile, overlap = val.get("tile"), val.get("overlap")
    if isinstance(tile, int) and isinstance(overlap, int) and 0 < tile < 2 * overlap:
        faults.add(("val", "overlap"), f"must be at most half of val.tile, {tile // 2}; got {overlap}")
    if not is_train:
        return
    if data.get("train") is None:
        faults.add(("train",), "this required section is missing; files without it are for test.py")
    elif train and train.get("pixel_opt") is None and not is_foreign:
        faults.add(("train",), "the required key train.pixel_opt is missing: there is no loss to train with")
    validated = [label for label in sections["datasets"] if label.startswith("val")]
    if validated and val.get("val_freq") is None:
        key = ("datasets", validated[0])
        faults.add(key, f"{dotted(key)} is never used: val.val_freq (steps between validations) is missing")
    if not validated and val.get("val_freq") is not None:
        faults.add(("val", "val_freq"), "there is nothing to validate on: datasets.val is missing")
