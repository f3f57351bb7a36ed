"""Checking what adversarial training needs: a discriminator, its optimiser, and a loss of its scores."""

from __future__ import annotations

from typing import Any

from mambair.options.components import look_up
from mambair.options.errors import FaultList, KeyPath, dotted
from mambair.options.signatures import check_arguments
from mambair.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, arguments_of
from mambair.system.tables import first_line

NEEDED: tuple[KeyPath, ...] = (("network_d",), ("train", "optim_d"), ("train", "gan_opt"))
OTHERS: tuple[KeyPath, ...] = (
    ("train", "ldl_opt"),
    *(("train", key) for key in ("net_d_iters", "net_d_init_iters", "r1_reg_weight", "net_d_reg_every")),
    *(("path", key) for key in ("pretrain_network_d", "strict_load_d", "param_key_d")),
)


def check_adversarial(data: dict[str, Any], faults: FaultList, *, is_train: bool) -> None:
    """Check the sections of a discriminator against the model type: all of them, or none.

    Args:
        data: the file; its ``model_type`` is one of ours.
        faults: gets what is wrong.
        is_train: a file for testing needs no discriminator.
    """
    name = data["model_type"]
    if not getattr(MODEL_REGISTRY.get(name), "trains_discriminator", False):
        for path in (*NEEDED, *OTHERS):
            if _value(data, path) is not None:
                text = (
                    f"{name} trains no discriminator; write model_type: SRGANModel (or ESRGANModel), or delete this key"
                )
                faults.add(path, text)
        return
    if not is_train:
        return
    for path in NEEDED:
        if _value(data, path) is None:
            faults.add(path[:-1] or path, f"{name} needs {dotted(path)}, which is missing")
    if _value(data, ("train", "ldl_opt")) and not _value(data, ("train", "ema_decay")):
        faults.add(("train", "ldl_opt"), "needs train.ema_decay above 0: artifacts are found by the averaged network")
    _check_gan_loss(data, faults)
    _check_discriminator(data, faults)


def _value(data: dict[str, Any], path: KeyPath) -> Any:
    found: Any = data
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _check_gan_loss(data: dict[str, Any], faults: FaultList) -> None:
    """A loss of scores, and of nothing else, stands at ``gan_opt``; its arguments are checked with the other losses."""
    from mambair.losses import GANLoss

    found, path = _value(data, ("train", "gan_opt")), ("train", "gan_opt", "type")
    name = found.get("type") if isinstance(found, dict) else None
    if not isinstance(name, str) or not LOSS_REGISTRY.is_ours(name) or faults.has(path):
        return
    loss = LOSS_REGISTRY.get(name)
    if loss.__module__.startswith("mambair.losses") and not issubclass(loss, GANLoss):
        faults.add(path, f"{name} compares images; expected a loss of scores, as GANLoss is")


def _check_discriminator(data: dict[str, Any], faults: FaultList) -> None:
    """Build ``network_d`` without memory and let it judge an image of the training's size."""
    import torch

    from mambair.archs import BuildError, build

    found, path = data.get("network_d"), ("network_d",)
    network = look_up(ARCH_REGISTRY, found, path, faults) if isinstance(found, dict) else None
    if network is None or found is None:
        return
    check_arguments(network, found, path, faults)
    if faults.has(path):
        return
    arguments = arguments_of(found)
    try:
        net = build(found["type"], arguments, device="meta")
    except BuildError as error:
        faults.add(path, f"{found['type']} refuses these values: {error.reason}")
        return
    train = _value(data, ("datasets", "train")) or {}
    channels = _value(data, ("network_g", "in_chans"))
    written = train.get("gt_sizes") or [train.get("gt_size")] if isinstance(train, dict) else []
    for side in written if isinstance(written, list) else ():
        if not isinstance(side, int) or side < 1:
            continue  # the data set's own check says so
        images = torch.zeros(2, channels if isinstance(channels, int) else 3, side, side, device="meta")
        try:
            net(images)
        except Exception as error:  # the class may be anyone's code
            faults.add(path, f"{found['type']} cannot judge images of gt_size {side}: {first_line(error)}")
            return
