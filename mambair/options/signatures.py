"""Checking a mapping of the option file against the real signature of the class or function its ``type`` names."""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from mambair.options.errors import FaultList, KeyPath, dotted, nearest, shown

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    dict: "a mapping",
}
SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
MAPPINGS = (dict, collections.abc.Mapping)


def check_arguments(
    callable_: Callable[..., Any],
    found: dict[str, Any],
    path: KeyPath,
    faults: FaultList,
    *,
    given: frozenset[str] = frozenset(),
) -> None:
    """Note a fault for each key of ``found`` that ``callable_`` does not name, each missing one and each wrong type.

    A ``**kwargs`` is not taken as leave to pass anything. Whole numbers written as ``5.`` become ints in ``found``
    where an int is asked for.

    Args:
        callable_: a class (its ``__init__`` counts) or a function.
        found: the mapping at ``path``; its ``type`` is passed over.
        given: arguments the program passes itself (``params``, ``img``): neither needed nor allowed in the file.
    """
    parameters = named_parameters(callable_)
    hints = type_hints(callable_)
    for key in [key for key in found if key != "type"]:
        if key not in parameters or key in given:
            name = getattr(callable_, "__name__", str(callable_))
            hint = nearest(key, (known for known in parameters if known not in given))
            faults.add((*path, key), f"{name} has no argument {key!r}; {hint}")
            continue
        annotation = hints.get(key, _guessed(parameters[key]))
        found[key] = _whole(found[key], annotation)
        if not matches(found[key], annotation):
            faults.add((*path, key), f"found {shown(found[key])}; {in_words(annotation)} is right")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in found and key not in given:
            faults.add(path, f"the required key {dotted((*path, key))} is missing")


def named_parameters(callable_: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be passed by name, without ``self``, ``*args`` and ``**kwargs``."""
    parameters = inspect.signature(callable_).parameters.values()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in by_name}


def matches(value: object, annotation: Any) -> bool:
    """Whether a plain YAML value fits a type annotation; an annotation not understood fits everything."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return matches(value, typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in typing.get_args(annotation))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(annotation))
    if annotation in (None, type(None)):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation in (int, float):
        numbers = (int,) if annotation is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is str:
        return isinstance(value, str)
    if (origin or annotation) in SEQUENCES:
        return isinstance(value, list) and _items_match(value, annotation)
    if (origin or annotation) in MAPPINGS:
        return isinstance(value, dict)
    return annotation is Any or not _is_class_of_objects(annotation)


def in_words(annotation: Any) -> str:
    """A type annotation for people who write YAML: ``list of whole numbers``, ``text or null``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return in_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if not _is_class_of_objects(option)]
        return " or ".join(dict.fromkeys(in_words(option) for option in options))
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(shown(choice) for choice in arguments)
    if (origin or annotation) in SEQUENCES:
        items = [item for item in arguments if item is not Ellipsis]
        if (origin or annotation) is tuple and Ellipsis not in arguments and len(items) > 1:
            return f"a list of {len(items)} values"
        return f"a list, each item {in_words(items[0])}" if items else "a list"
    if (origin or annotation) in MAPPINGS:
        return _WORDS[dict]
    return _WORDS.get(annotation, "a value of another type")


def _items_match(value: list[object], annotation: Any) -> bool:
    items = typing.get_args(annotation)
    is_fixed = (typing.get_origin(annotation) or annotation) is tuple and items and Ellipsis not in items
    if is_fixed:
        return len(value) == len(items) and all(matches(*pair) for pair in zip(value, items, strict=True))
    return not items or all(matches(item, items[0]) for item in value)


def _is_class_of_objects(annotation: Any) -> bool:
    """Whether the annotation names a class of which YAML has no values (a Tensor, a layer type)."""
    origin = typing.get_origin(annotation)
    if origin in (type, collections.abc.Callable):
        return True
    plain = (*_WORDS, *SEQUENCES, *MAPPINGS, object)
    # Python 3.10 takes list[int] itself for a class
    return origin not in plain and isinstance(annotation, type) and annotation not in plain


def _whole(value: object, annotation: Any) -> object:
    wants_int = annotation is int or int in typing.get_args(annotation)
    if isinstance(value, float) and value.is_integer() and wants_int and not matches(value, annotation):
        return int(value)
    return value


def _guessed(parameter: inspect.Parameter) -> Any:
    """For unannotated parameters: a default that is a number, flag or text tells the type, as far as it goes."""
    default = parameter.default
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):
        return float | list
    return str | None if isinstance(default, str) else Any


def type_hints(callable_: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the parameters, resolved; empty where they cannot be."""
    function = callable_.__init__ if isinstance(callable_, type) else callable_
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names under TYPE_CHECKING, or a function written in C: its types are unknown
        return {}
