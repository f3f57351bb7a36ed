"""Checking the ``datasets`` section: phases, each data set's own keys, folders, sizes and the batch size."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Any

from mambair.metrics import needs_reference
from mambair.options.compat import IGNORED, Dropped, apply_task
from mambair.options.components import check_metrics, look_up
from mambair.options.errors import FaultList, KeyPath, dotted, nearest, shown
from mambair.options.paths import check_plain_name, resolve
from mambair.options.pydantic_errors import validate
from mambair.options.schema import LoaderOptions
from mambair.options.signatures import matches
from mambair.registry import DATASET_REGISTRY

logger = logging.getLogger(__name__)

_PHASE = re.compile(r"train|val(_\d+)?|test(_\d+)?")
_LOADER = frozenset(LoaderOptions.model_fields)
_BACKENDS, _BACKEND_KEYS = ("disk", "lmdb"), ("type", "db_paths", "client_keys")


def check_datasets(
    data: dict[str, Any], faults: FaultList, dropped: Dropped, *, is_train: bool, check_paths: bool
) -> dict[str, dict[str, Any]]:
    """Each data set of the file with its defaults, its absolute paths, and BasicSR's ``phase``, ``name``, ``scale``."""
    found = data.get("datasets")
    complete: dict[str, dict[str, Any]] = {}
    if not isinstance(found, dict):
        return complete
    _check_phases(found, faults, is_train=is_train)
    for label, options in found.items():
        if not _PHASE.fullmatch(label) or not isinstance(options, dict):
            continue
        scale = data.get("scale")
        facts = {
            "phase": label.partition("_")[0],
            "name": label,
            "scale": scale if type(scale) is int and scale > 0 else None,
        }
        check = _DatasetCheck(faults, dropped, check_paths, data.get("network_g"))
        complete[label] = check.complete(options, ("datasets", label), facts)
    _check_names(complete, faults)
    _warn_of_training_images(complete)
    return complete


def _warn_of_training_images(datasets: dict[str, dict[str, Any]]) -> None:
    """Say that a validation on the images of the training measures nothing new; both paths are absolute."""
    trained = datasets.get("train", {}).get("dataroot_gt")
    for label, options in datasets.items():
        if label.startswith("val") and trained and options.get("dataroot_gt") == trained:
            logger.warning("datasets.%s: these are the images of the training, %s", label, trained)


def _check_phases(found: dict[str, Any], faults: FaultList, *, is_train: bool) -> None:
    wanted = ("train", "val") if is_train else ("test",)
    for label in found:
        if not _PHASE.fullmatch(label):
            examples = ("train", "val") if is_train else ("test_1",)
            faults.add(("datasets", label), f"unknown phase; {nearest(label, examples)}")
        elif label.partition("_")[0] not in wanted:
            here, there = ("train.py", "test.py") if is_train else ("test.py", "train.py")
            faults.add(("datasets", label), f"{here} has no use for it; delete it, or run {there} with this file")
    if is_train and "train" not in found:
        faults.add(("datasets",), "the required key datasets.train is missing (files for test.py have none)")
    if not is_train and not any(label.startswith("test") for label in found):
        faults.add(("datasets",), "no data set to test on; write datasets.test_1 (files for train.py have none)")


@dataclass(frozen=True)
class _DatasetCheck:
    """What checking a data set needs to know."""

    faults: FaultList
    dropped: Dropped
    check_paths: bool
    network: object

    def complete(self, options: dict[str, Any], path: KeyPath, facts: dict[str, Any]) -> dict[str, Any]:
        """The data set at ``path``, and those it is mixed of, with defaults and absolute paths; faults are noted."""
        apply_task(options, path, self.dropped)
        dataset = look_up(DATASET_REGISTRY, options, path, self.faults)
        check_metrics(options, path, self.faults)
        _check_references(dataset, options, path, self.faults)
        members = self._members(dataset, options, path, facts)
        complete = _check_keys(dataset, options, path, facts, self.faults, self.dropped)
        if members:
            complete["datasets"] = members
        _resolve_paths(complete, path, self.faults, check=self.check_paths)
        # sizes are judged by the scale, so without one there is nothing to check
        can_check = self.check_paths and hasattr(dataset, "check") and facts["scale"] is not None
        if can_check and not self.faults.has(path):
            _check_files(dataset, complete, path, self.faults)
        _check_channels(complete, self.network, path, self.faults)
        return complete

    def _members(
        self, dataset: Any | None, options: dict[str, Any], path: KeyPath, facts: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The data sets that a mixture names, complete, without the loader's keys, which are the mixture's."""
        model, found = getattr(dataset, "Options", None), options.get("datasets")
        if "datasets" not in getattr(model, "model_fields", {}) or not isinstance(found, list):
            return []
        complete = []
        for number, member in enumerate(found):
            place = (*path, "datasets", number)
            if not isinstance(member, dict):
                continue  # the type of the list is checked with the keys of the mixture
            for key in [key for key in member if key in _LOADER]:
                self.faults.add((*place, key), "belongs to the mixture, not to one of its data sets; move or delete it")
                del member[key]
            checked = self.complete(member, place, {**facts, "is_member": True})
            complete.append({key: value for key, value in checked.items() if key not in _LOADER})
        return complete


def _check_references(dataset: Any | None, options: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """A set without ground truth has no metric of its own that needs one; those of ``val`` are for other sets, too."""
    if getattr(dataset, "has_ground_truth", True):
        return
    metrics = options.get("metrics")
    for label, found in metrics.items() if isinstance(metrics, dict) else ():
        place = (*path, "metrics", label)
        if isinstance(found, dict) and not faults.has(place) and needs_reference(found):
            faults.add((*place, "type"), f"{found['type']} needs a ground truth, which {options['type']} has not")


def _check_keys(
    dataset: Any | None,
    options: dict[str, Any],
    path: KeyPath,
    facts: dict[str, Any],
    faults: FaultList,
    dropped: Dropped,
) -> dict[str, Any]:
    """The data set's own keys against its ``Options`` (a class without them reads what it reads), and the loader's."""
    loader = {key: value for key, value in options.items() if key in _LOADER}
    is_member = facts.get("is_member", False)
    facts = {key: value for key, value in facts.items() if key != "is_member"}
    if not is_member:
        _check_batch_keys(loader, path, facts["phase"], faults)
    _check_facts(options, path, facts, faults)
    complete = {**facts, **(validate(LoaderOptions, loader, path, faults) or {})}
    model = getattr(dataset, "Options", None)
    if model is None:
        _check_backend(options, path, faults)
        complete |= options
    else:
        known = frozenset(model.model_fields)
        dropped.take_out(options, path, IGNORED["datasets"] - known)
        own = {key: value for key, value in options.items() if key not in _LOADER}
        own |= {key: value for key, value in facts.items() if key in known and key not in own and value is not None}
        _unwrap_folders(own, model.model_fields, path, faults)
        complete |= validate(model, own, path, faults) or own
    # basicsr asks whether a key is there, not whether it says something
    return {key: value for key, value in complete.items() if value is not None or key in options}


def _check_backend(options: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """Check the ``io_backend`` of a set that is not ours; BasicSR's memcached imports a module from a named folder."""
    backend, place = options.get("io_backend", {"type": "disk"}), (*path, "io_backend")
    if not isinstance(backend, dict):
        faults.add(place, f"found {shown(backend)}; a mapping such as {{type: disk}} is right")
        return
    if (kind := backend.get("type")) not in _BACKENDS:
        faults.add((*place, "type"), f"found {shown(kind)}; {' or '.join(map(repr, _BACKENDS))} is right")
    for key in [key for key in backend if key not in _BACKEND_KEYS]:
        faults.add((*place, key), f"unknown key; {nearest(str(key), _BACKEND_KEYS)}")


def _unwrap_folders(own: dict[str, Any], fields: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """Published files write one folder as a list of one; a data set of one folder cannot take two."""
    for key, value in own.items():
        takes_lists = key not in fields or matches(value, fields[key].annotation)
        if key.startswith("dataroot_") and isinstance(value, list) and value and not takes_lists:
            own[key] = value[0]
            if len(value) > 1:
                text = f"found {len(value)} folders; one is right: put the images, or links to them, into one folder"
                faults.add((*path, key), text)


def _check_facts(options: dict[str, Any], path: KeyPath, facts: dict[str, Any], faults: FaultList) -> None:
    """What the place of a data set says already may be repeated in it, not contradicted."""
    for key in ("phase", "scale"):
        if key in options and facts[key] is not None and options[key] != facts[key]:
            faults.add((*path, key), f"found {shown(options[key])}; {shown(facts[key])} is right here: leave it out")


def _check_files(dataset: Any, options: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """Let the data set list its folders: empty ones, unpaired images; no image is decoded."""
    for fault in dataset.check(options):
        key, colon, text = fault.partition(": ")
        faults.add((*path, key) if colon and key in options else path, text if colon and key in options else fault)


def _check_batch_keys(loader: dict[str, Any], path: KeyPath, phase: str, faults: FaultList) -> None:
    keys = [key for key in ("total_batch_size", "batch_size_per_gpu") if loader.get(key) is not None]
    if phase == "train" and loader.get("metrics") is not None:
        faults.add(
            (*path, "metrics"), "a training set is not measured; delete this key, or move it to a validation set"
        )
    if phase != "train":
        for key in keys:
            faults.add((*path, key), "images are validated and tested one by one; delete this key")
    elif not keys:
        faults.add(path, "the batch size is missing; write total_batch_size (images in one step, over all processes)")
    elif len(keys) == 2:
        faults.add((*path, "batch_size_per_gpu"), "total_batch_size is given too; keep total_batch_size only")


def _resolve_paths(options: dict[str, Any], path: KeyPath, faults: FaultList, *, check: bool) -> None:
    for key, value in options.items():
        if key.startswith("dataroot_") and isinstance(value, str):
            options[key] = resolve(value, (*path, key), faults, kind="folder", check=check)
        elif key.startswith("dataroot_") and isinstance(value, list) and all(isinstance(item, str) for item in value):
            options[key] = [resolve(item, (*path, key), faults, kind="folder", check=check) for item in value]
        elif key.startswith("meta_info") and isinstance(value, str):
            options[key] = resolve(value, (*path, key), faults, kind="file", check=check)


def _check_channels(options: dict[str, Any], network: object, path: KeyPath, faults: FaultList) -> None:
    """A network for grey images needs grey images."""
    channels = network.get("in_chans") if isinstance(network, dict) else None
    color = options.get("color")
    wanted = {1: ("gray", "y"), 3: ("rgb",)}.get(channels) if isinstance(channels, int) else None
    if wanted and color in ("rgb", "gray", "y") and color not in wanted:
        text = f"found {color}, but network_g.in_chans is {channels}; {' or '.join(wanted)} is right"
        faults.add((*path, "color"), text)


def _check_names(datasets: dict[str, dict[str, Any]], faults: FaultList) -> None:
    """Results are filed by the name of the data set, so two of one phase may not share one."""
    first: dict[tuple[str, str], str] = {}
    for label, options in datasets.items():
        name = options["name"]
        if not isinstance(name, str):
            faults.add(("datasets", label, "name"), f"found {shown(name)}; text is right")
            continue
        check_plain_name(name, ("datasets", label, "name"), faults)
        other = first.setdefault((label.partition("_")[0], name), label)
        if other != label:
            faults.add(("datasets", label, "name"), f"{name!r} is the name of datasets.{other} too; choose another")


def move_top_level_keys(data: dict[str, Any], places: dict[KeyPath, str], faults: FaultList) -> None:
    """Move keys of the training data that BasicSR's files have at the top level into ``datasets.train``.

    Which they are, the ``TOP_LEVEL_KEYS`` of the data set's ``Options`` say. A key may stand in both places with one
    value.

    Args:
        data: the file; changed.
        places: where each key stands; moved along.
        faults: gets keys that contradict each other.
    """
    sections = data.get("datasets")
    train = sections.get("train") if isinstance(sections, dict) else None
    name = train.get("type") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(name, str) or not DATASET_REGISTRY.is_ours(name):
        return
    model = getattr(DATASET_REGISTRY.get(name), "Options", None)
    for key in [key for key in data if key in getattr(model, "TOP_LEVEL_KEYS", ())]:
        value, path = data.pop(key), ("datasets", "train", key)
        if key not in train:
            train[key] = value
            moved = [place for place in places if place[0] == key]
            places.update({(*path, *place[1:]): places[place] for place in moved})
        elif train[key] != value:
            text = f"found {shown(value)}, but {dotted(path)} is {shown(train[key])}; keep one of the two"
            faults.add((key,), text)


def settle_batch_size(opt: dict[str, Any]) -> None:
    """Set ``datasets.train.total_batch_size``: as written, or BasicSR's batch size of one GPU times their number.

    That number is the file's ``num_gpu``, whatever this machine has: the recipe stays the same everywhere, and so does
    the memory, as no more than the batch of one GPU goes through the network at once. With ``auto`` it is the number of
    processes that were started. ``train.accumulation`` multiplies.
    """
    train, num_gpu = opt["datasets"]["train"], opt["num_gpu"]
    if train.get("total_batch_size"):
        return
    if num_gpu == "auto":
        processes = os.environ.get("WORLD_SIZE", "")
        num_gpu = int(processes) if processes.isdecimal() else 1
    steps = opt["train"]["accumulation"]
    train["total_batch_size"] = train["batch_size_per_gpu"] * max(num_gpu, 1) * steps
    if steps == 1 and opt["train"].get("images_per_pass") is None:
        opt["train"]["images_per_pass"] = train["batch_size_per_gpu"]
    logger.info(
        "total batch size: %d = batch_size_per_gpu %d x %d GPUs x accumulation %d; total_batch_size states it directly",
        train["total_batch_size"],
        train["batch_size_per_gpu"],
        max(num_gpu, 1),
        steps,
    )
