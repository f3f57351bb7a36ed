"""Rules between keys of an option file: what one key states and another contradicts, or needs and does not get."""

from __future__ import annotations

import logging
from typing import Any

from mambair.options.errors import FaultList, KeyPath, dotted

logger = logging.getLogger(__name__)


def check_agreement(data: dict[str, Any], faults: FaultList, *, is_train: bool, is_foreign: bool) -> None:
    """Check the sections against each other, on the values as they were written; other types are other faults."""
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
    _check_validation(sections["datasets"], val, faults)
    _check_passes(sections["datasets"].get("train"), train, faults)
    _check_length(train, faults)
    if train.get("ema_warmup") is True and not train.get("ema_decay"):
        faults.add(("train", "ema_warmup"), "there is no average to warm up: train.ema_decay is missing")
    _check_teacher(train.get("teacher_opt"), sections["path"].get("pretrain_network_g_teacher"), faults)
    names, shares = train.get("moa_augs"), train.get("moa_probs")
    if isinstance(shares, list) and isinstance(names, list) and len(names) != len(shares):
        faults.add(("train", "moa_probs"), f"expected one number for each of moa_augs, {len(names)}; got {len(shares)}")


def _check_teacher(loss: object, weights: object, faults: FaultList) -> None:
    if loss is not None and weights is None:
        faults.add(("train", "teacher_opt"), "needs path.pretrain_network_g_teacher, the weights of the teacher")
    if loss is None and weights is not None:
        key = ("path", "pretrain_network_g_teacher")
        faults.add(key, "has no effect without train.teacher_opt, the loss between output and teacher")


def _check_validation(datasets: dict[str, Any], val: dict[str, Any], faults: FaultList) -> None:
    validated = [label for label in datasets if label.startswith("val")]
    if validated and val.get("val_freq") is None:
        key = ("datasets", validated[0])
        faults.add(key, f"{dotted(key)} is never used: val.val_freq (steps between validations) is missing")
    if not validated and val.get("val_freq") is not None:
        faults.add(("val", "val_freq"), "there is nothing to validate on: datasets.val is missing")


def _check_passes(data: object, train: dict[str, Any], faults: FaultList) -> None:
    """The parts in which a batch goes through the network; `plan_batch` adds the number of processes."""
    parts = _whole(train.get("accumulation"))
    batch = _whole(data.get("total_batch_size")) if isinstance(data, dict) else None
    if parts is None or parts <= 1:
        return
    if batch is not None and batch % parts:
        text = f"found {parts}; a divisor of datasets.train.total_batch_size ({batch}) is right"
        faults.add(("train", "accumulation"), text)
    if train.get("images_per_pass"):
        faults.add(("train", "images_per_pass"), "train.accumulation is given too; keep one, the other follows")


def _check_length(train: dict[str, Any], faults: FaultList) -> None:
    """Steps that the training does not reach, and steps that its schedule does not cover.

    A ``total_iter`` of the command line makes a shorter or longer run of a file that agrees with itself: a warning.
    """
    total, warmup, schedule = _whole(train.get("total_iter")), _whole(train.get("warmup_iter")), train.get("scheduler")
    if total is None or total < 1:
        return
    found: list[tuple[KeyPath, str]] = []
    if warmup is not None and warmup >= total:
        found.append((("train", "warmup_iter"), f"found {warmup}; a number below train.total_iter ({total})"))
    if isinstance(schedule, dict) and not faults.has(("train", "scheduler")):
        for key in ("milestones", "restarts"):
            late = [step for step in schedule.get(key, ()) if step > total]
            if late:
                text = f"found {late[0]}; a number up to train.total_iter ({total})"
                found.append((("train", "scheduler", key), text))
        key = "T_max" if schedule.get("T_max") else "periods"
        covered = schedule.get("T_max") or sum(schedule.get("periods", ())) or total
        if covered < total:
            text = f"found {covered} steps in all; train.total_iter ({total}) or more"
            found.append((("train", "scheduler", key), text))
    for path, text in found:
        if faults.place(("train", "total_iter")).startswith("--force_yml"):
            logger.warning("%s: %s would be right", dotted(path), text)
        else:
            faults.add(path, f"{text} is right")


def _whole(value: object) -> int | None:
    """A whole number as the schema accepts it (``5e3`` is one), or None."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) else None  # type: ignore[arg-type]
