"""The one place where a network is made from a registered name and arguments."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mambair.registry import ARCH_REGISTRY
from mambair.system.tables import first_line

SHOWN = 300  # characters of the arguments in a message


class BuildError(ValueError):
    """A network cannot be built.

    Attributes:
        reason: why, without the name and the arguments.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def build(name: str, kwargs: Mapping[str, Any] | None = None, *, device: str | None = None) -> nn.Module:
    """Build a network with random weights; its ``built_from`` is (name, arguments).

    Args:
        name: registered name of the class (``ARCH_REGISTRY``), ours, a backbone's, or basicsr's.
        kwargs: arguments of the class.
        device: where its tensors are made; "meta" makes a network without numbers, which takes no memory.

    Raises:
        BuildError: no class has this name, or it refuses the arguments.
    """
    arguments = dict(kwargs or {})
    if name not in ARCH_REGISTRY:
        importlib.import_module("mambair.backbones")  # registers them; only now, as timm comes in where it is installed
    try:
        network = ARCH_REGISTRY.get(name)
    except KeyError as error:
        raise BuildError(str(error.args[0]), str(error.args[0])) from None
    reason = _unknown_argument(network, arguments)
    if reason is not None:
        raise _refusal(name, arguments, reason)
    try:
        with torch.device(device) if device else contextlib.nullcontext():
            built = network(**arguments)
    except ValueError as error:  # how our networks refuse an argument
        raise _refusal(name, arguments, first_line(error)) from error
    except Exception as error:  # the class may be anyone's code
        raise _refusal(name, arguments, _wrong_type(network, arguments) or first_line(error)) from error
    built.built_from = (name, arguments)  # for who writes the network: weights do not tell every argument
    return built


def _refusal(name: str, arguments: Mapping[str, Any], reason: str) -> BuildError:
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    written = written if len(written) <= SHOWN else written[:SHOWN] + " ..."
    return BuildError(f"{name}({written}) cannot be built: {reason}", reason)


def _unknown_argument(network: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """Name the first argument that ``network`` does not take, and the nearest one that it does."""
    parameters = inspect.signature(network).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    for key in arguments:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(parameters)}"
            return f"it has no argument {key!r}; {hint}"
    return None


def _wrong_type(network: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """Name the first argument whose value is not of the annotated type; None where all fit or nothing is known."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        hints = typing.get_type_hints(network.__init__ if isinstance(network, type) else network)
    except (NameError, TypeError):  # names under TYPE_CHECKING
        return None
    for key, value in arguments.items():
        try:
            strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
            TypeAdapter(hints.get(key, Any), config=strict).validate_python(value)
        except ValidationError:
            annotation = inspect.signature(network).parameters[key].annotation
            written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            return f"{key} must be {written}, got {value!r}"
        except PydanticUserError:  # an annotation it cannot check
            continue
    return None
