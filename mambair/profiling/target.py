"""What is profiled: a published network by name, a file of weights, an option file's network, or a registered class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mambair.archs import BuildError, build
from mambair.archs.published import family_with
from mambair.options import load_options
from mambair.options.base_file import read_option_file
from mambair.registry import ARCH_REGISTRY
from mambair.system.download import download_bar
from mambair.system.errors import RequestError
from mambair.weights.addresses import is_address
from mambair.weights.catalogue import find
from mambair.weights.checkpoint import read_checkpoint
from mambair.weights.fetch import locate
from mambair.weights.recognition import recognise

OPTION_FILES = (".yml", ".yaml")


@dataclass(frozen=True)
class Target:
    """A network to build; weights do not matter for what it costs, so they are drawn at random.

    Attributes:
        label: how the user named it.
        arch, kwargs: the registered class and its arguments.
        published: the family of published networks it belongs to, if any.
    """

    label: str
    arch: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    published: str | None = None

    def build(self, *, device: str = "cpu") -> nn.Module:
        """The network in eval mode, with random weights.

        Args:
            device: "meta" for a network without numbers.

        Raises:
            RequestError: the class does not take these arguments.
        """
        try:
            return build(self.arch, self.kwargs, device=device).eval()
        except BuildError as error:
            raise RequestError(str(error)) from error


def find_target(text: str, kwargs: Mapping[str, Any] | None = None, *, offline: bool | None = None) -> Target:
    """What ``text`` means.

    Args:
        text: a file of weights, an option file, a published network (``MambaIR-light-x2``), a registered class, or the
            address of a file of weights, as `mambair.weights.fetch.locate` takes it.
        kwargs: arguments of the class; for a class only.
        offline: see `locate`; published networks are built without their weights.

    Raises:
        RequestError: it means nothing, or ``kwargs`` are given where the network has arguments already.
        ValueError: the file cannot be understood.
        OSError: the file cannot be read.
    """
    path = Path(text)
    if kwargs:
        if text not in ARCH_REGISTRY:
            classes = ", ".join(ARCH_REGISTRY.keys())
            raise RequestError(f"arguments are for a registered class ({classes}), not for {text}")
        return Target(text, text, dict(kwargs))
    if path.is_file():
        return _of_options(path) if path.suffix.lower() in OPTION_FILES else _of_weights(path)
    if is_address(text):
        return _of_weights(locate(text, offline=offline, progress=download_bar))
    try:
        spec = find(text)
    except RequestError as error:
        if text in ARCH_REGISTRY:
            return Target(text, text)
        classes = ", ".join(ARCH_REGISTRY.keys())
        raise RequestError(f"{text}: there is no such file, and {error}; registered classes: {classes}") from None
    return Target(text, spec.arch, spec.kwargs, spec.family.family if spec.family else None)


def _of_weights(path: Path) -> Target:
    checkpoint = read_checkpoint(path)
    arch, kwargs = recognise(checkpoint)
    target = Target(path.name, arch, kwargs)
    parameters = sum(parameter.numel() for parameter in target.build(device="meta").parameters())
    return Target(path.name, arch, kwargs, family_with(parameters))


def _of_options(path: Path) -> Target:
    is_train = "train" in read_option_file(path).data
    options = load_options(path, is_train=is_train, check_paths=False)
    network = dict(options.get("network_g") or {})
    if not network:
        raise RequestError(f"{path}: the option file has no network_g; name its weights instead")
    arch = network.pop("type")
    return Target(path.name, arch, network)
