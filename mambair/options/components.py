"""Checking the parts of an option file that name a class: network, losses, metrics, optimiser, schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mambair.options.compat import IGNORED, Dropped
from mambair.options.errors import FaultList, KeyPath, dotted, nearest, shown
from mambair.options.optimizer_library import AVERAGING, LIBRARY, MissingLibraryError, library_optimizer
from mambair.options.pydantic_errors import validate
from mambair.options.schema import SCHEDULES, MuonOptions
from mambair.options.signatures import check_arguments, named_parameters
from mambair.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, Registry, arguments_of
from mambair.system.tables import first_line

OPTIMIZERS = ("Adam", "AdamW", "SGD")
SIDE = 256  # of a black image that metrics are tried with
MOST_BLOCKS = 1000  # of a group
LOSS_WEIGHTS = ("loss_weight", "perceptual_weight", "style_weight")


def look_up(registry: Registry, found: dict[str, Any], path: KeyPath, faults: FaultList) -> Any | None:
    """What the ``type`` of the mapping at ``path`` names, or None after noting a fault."""
    name = type_name(found, path, faults)
    return None if name is None else look_up_name(registry, name, (*path, "type"), faults)


def look_up_name(registry: Registry, name: str, path: KeyPath, faults: FaultList) -> Any | None:
    """What ``name``, which stands at ``path``, names in ``registry``, or None after noting a fault."""
    if registry.is_ours(name):
        return registry.get(name)
    try:
        return registry.get(name)
    except KeyError as error:
        faults.add(path, f"{error.args[0]}; your own comes in by --import")
    except ImportError as error:
        faults.add(path, f"no {registry.kind} named {name!r} here, and asking basicsr failed: {error}")
    return None


def type_name(found: dict[str, Any], path: KeyPath, faults: FaultList) -> str | None:
    """The ``type`` of a mapping, or None after noting a fault."""
    if "type" not in found:
        faults.add(path, f"the required key {dotted((*path, 'type'))} is missing")
        return None
    if not isinstance(found["type"], str):
        faults.add((*path, "type"), f"found {shown(found['type'])}; the name of a class is right")
        return None
    return found["type"]


def check_network(data: dict[str, Any], faults: FaultList, dropped: Dropped, *, is_train: bool) -> None:
    """``network_g`` against the signature of its class, by one trial construction, and against ``scale``."""
    found, path = data.get("network_g"), ("network_g",)
    if not isinstance(found, dict):
        return
    network = look_up(ARCH_REGISTRY, found, path, faults)
    if network is None:
        return
    known = named_parameters(network)
    ignored = IGNORED.get(f"network_g of {found['type']}", frozenset()) - set(known)
    dropped.take_out(found, path, ignored)
    check_arguments(network, found, path, faults)
    if is_train and not faults.has(path):
        _check_depths(found, path, faults)
    if faults.has(path):
        return
    scale_key = next((key for key in ("upscale", "scale") if key in known), None)
    if ARCH_REGISTRY.is_ours(found["type"]):
        upscale = _trial_construction(found, faults)
    else:
        upscale = found.get(scale_key, known[scale_key].default) if scale_key else None
    scale = data.get("scale")
    if isinstance(upscale, int) and isinstance(scale, int) and scale > 0 and upscale != scale:
        key = scale_key or "type"
        written = "" if key in found else " (as it is not given)"
        faults.add((*path, key), f"found {upscale}{written}, but scale is {scale}; the two must be equal")


def _check_depths(found: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """A level without blocks can be loaded and run, but no training means it."""
    for key in ("depths", "num_blocks", "depth"):
        numbers = found.get(key, 1)
        numbers = numbers if isinstance(numbers, list) else [numbers]
        if not numbers or any(not 1 <= number <= MOST_BLOCKS for number in numbers):
            text = f"found {shown(found[key])}; 1 to {MOST_BLOCKS} blocks in each place are right"
            faults.add((*path, key), text)


def _trial_construction(found: dict[str, Any], faults: FaultList) -> int | None:
    """The enlargement of a network of ours, which refuses values that make no sense; no memory on the meta device."""
    from mambair.archs import BuildError, Discriminator, build

    try:
        net = build(found["type"], arguments_of(found), device="meta")
    except BuildError as error:
        faults.add(("network_g",), f"{found['type']} refuses these values: {error.reason}")
        return None
    if isinstance(net, Discriminator):
        faults.add(("network_g", "type"), f"{found['type']} is a discriminator; it belongs to network_d")
    return getattr(net, "upscale", None)


def _try_call(
    callable_: Callable[..., Any], arguments: dict[str, Any], path: KeyPath, name: str, faults: FaultList
) -> Any | None:
    """The result, or None after noting the refusal of arguments that fit the signature and still make no sense."""
    try:
        return callable_(**arguments)
    except Exception as error:  # the class may be anyone's code
        faults.add(path, f"{name} refuses these values: {first_line(error)}")
        return None


def check_train_parts(train: object, faults: FaultList) -> None:
    """Losses (every ``*_opt``), the optimisers and the schedule of the ``train`` section."""
    if not isinstance(train, dict):
        return
    losses = [(path, found) for key in train if key.endswith("_opt") for path, found in _listed(train, key)]
    has_effect = [_check_loss(found, path, faults) for path, found in losses]
    if losses and not any(has_effect):
        names = ", ".join(dict.fromkeys(str(path[1]) for path, _ in losses))
        faults.add(("train",), f"all weights of {names} are 0: there is nothing to train for")
    for key in ("optim_g", "optim_d"):
        if isinstance(train.get(key), dict):
            _check_optimizer(train[key], ("train", key), faults)
    if isinstance(train.get("scheduler"), dict):
        _check_schedule(train, ("train", "scheduler"), faults)
    _check_averaging(train, faults)


def _listed(train: dict[str, Any], key: str) -> list[tuple[KeyPath, dict[str, Any]]]:
    """The losses at ``key``, one or a list of them, each with its place."""
    found = train[key]
    if isinstance(found, list):
        return [(("train", key, index), item) for index, item in enumerate(found) if isinstance(item, dict)]
    return [(("train", key), found)] if isinstance(found, dict) else []


def _check_loss(found: dict[str, Any], path: KeyPath, faults: FaultList) -> bool:
    """Note faults of a loss; False if its weights are all 0."""
    loss = look_up(LOSS_REGISTRY, found, path, faults)
    if loss is None:
        return True
    check_arguments(loss, found, path, faults)
    if faults.has(path):
        return True
    known = named_parameters(loss)
    weights = {key: found.get(key, known[key].default) for key in LOSS_WEIGHTS if key in known}
    for key, weight in weights.items():
        if weight < 0:
            faults.add((*path, key), f"found {shown(weight)}; a number of 0 or more is right")
    if found["type"] == "GANLoss" and path[1] != "gan_opt":
        faults.add((*path, "type"), "GANLoss judges a discriminator's scores; it belongs to gan_opt")
    if LOSS_REGISTRY.is_ours(found["type"]) and not faults.has(path):
        _try_call(loss, arguments_of(found), path, found["type"], faults)
    return not weights or any(weights.values())


def _check_optimizer(found: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    import torch

    name = type_name(found, path, faults)
    if name in (*OPTIMIZERS, *LIBRARY):
        try:
            optimizer = library_optimizer(name) if name in LIBRARY else getattr(torch.optim, name)
        except MissingLibraryError as error:
            faults.add((*path, "type"), str(error))
            return
        check_arguments(optimizer, found, path, faults, given=frozenset({"params"}))
        rate = found.get("lr", 1.0)
        if not faults.has((*path, "lr")) and rate <= 0:
            faults.add((*path, "lr"), f"found {shown(rate)}; a number above 0 is right")
        if not faults.has(path):
            _try_call(optimizer, {"params": [torch.zeros(1)], **arguments_of(found)}, path, name, faults)
    elif name == "Muon":
        found.update(validate(MuonOptions, arguments_of(found), path, faults) or {})
    elif name is not None:
        faults.add((*path, "type"), f"no optimiser named {name!r}; {nearest(name, (*OPTIMIZERS, 'Muon', *LIBRARY))}")


def _check_averaging(train: dict[str, Any], faults: FaultList) -> None:
    """A schedule-free optimiser averages the weights itself, in place of a schedule and of ``ema_decay``."""
    found, schedule = train.get("optim_g"), train.get("scheduler")
    if not isinstance(found, dict) or found.get("type") not in AVERAGING:
        return
    if train.get("ema_decay"):
        faults.add(("train", "ema_decay"), f"{found['type']} keeps an average itself; delete this key")
    if isinstance(schedule, dict) and schedule.get("type") != "ConstantLR":
        faults.add(("train", "scheduler"), f"{found['type']} needs a constant rate; delete this key")


def _check_schedule(train: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    found = train["scheduler"]
    name = type_name(found, path, faults)
    if name is None:
        return
    if name not in SCHEDULES:
        faults.add((*path, "type"), f"no schedule named {name!r}; {nearest(name, SCHEDULES)}")
        return
    complete = validate(SCHEDULES[name], arguments_of(found), path, faults)
    if complete is None:
        return
    steps = complete.get("periods", complete.get("restarts"))
    for key in ("restart_weights", "eta_mins"):
        if steps is not None and key in complete and len(complete[key]) != len(steps):
            text = f"found {len(complete[key])} values for {len(steps)} cycles; one value for each is right"
            faults.add((*path, key), text)
    train["scheduler"] = {"type": name, **complete}


def check_metrics(section: object, section_path: KeyPath, faults: FaultList) -> None:
    """Each of a section's ``metrics`` against the signature of its function; ``better`` is BasicSR's note for the log.

    Args:
        section: ``val``, or a data set.
        section_path: where it stands.
        faults: gets what is wrong.
    """
    metrics = section.get("metrics") if isinstance(section, dict) else None
    for label, found in metrics.items() if isinstance(metrics, dict) else ():
        path = (*section_path, "metrics", label)
        metric = look_up(METRIC_REGISTRY, found, path, faults) if isinstance(found, dict) else None
        if metric is None:
            continue
        arguments = {key: value for key, value in found.items() if key != "better"}
        check_arguments(metric, arguments, path, faults, given=frozenset({"img", "img2"}))
        found.update(arguments)
        if hasattr(metric, "better"):
            found.setdefault("better", metric.better)
        _try_metric(metric, found, path, faults)
        if found.get("better", "higher") not in ("higher", "lower"):
            faults.add((*path, "better"), f"found {shown(found['better'])}; higher or lower is right")


def _try_metric(metric: Callable[..., Any], found: dict[str, Any], path: KeyPath, faults: FaultList) -> None:
    """Our metrics refuse borders below zero, unknown orders of axes and the like; better now than after hours."""
    import numpy as np

    border = found.get("crop_border", 0)
    if METRIC_REGISTRY.is_ours(found["type"]) and isinstance(border, int) and border < 32 and not faults.has(path):
        arguments = {key: value for key, value in arguments_of(found).items() if key != "better"}
        image = np.zeros((3, SIDE, SIDE) if found.get("input_order") == "CHW" else (SIDE, SIDE, 3), np.uint8)
        images = dict.fromkeys({"img", "img2"} & named_parameters(metric).keys(), image)
        _try_call(metric, {**images, **arguments}, path, found["type"], faults)
