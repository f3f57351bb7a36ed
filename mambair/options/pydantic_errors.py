"""Checking mappings of the option file against the pydantic models, with faults in the words of a YAML file."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from mambair.options.errors import FaultList, KeyPath, nearest, shown

_RIGHT = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys and values",
    "model_type": "a mapping of keys and values",
    "model_attributes_type": "a mapping of keys and values",
}


def validate(model: type[BaseModel], found: object, path: KeyPath, faults: FaultList) -> dict[str, Any] | None:
    """The mapping at ``path`` with the model's defaults filled in, or None after noting what is wrong with it."""
    try:
        return model.model_validate(found).model_dump()
    except ValidationError as error:
        by_key: dict[KeyPath, list[str]] = {}
        for detail in error.errors(include_url=False):
            where = _key_of(detail["loc"], found, is_missing=detail["type"] == "missing")
            text = _in_words(model, where, detail)
            key, colon, rest = text.partition(": ")
            if colon and key in fields_at(model, where):  # a check of several keys that names the one at fault
                where, text = (*where, key), rest
            by_key.setdefault((*path, *where), []).append(text)
        for key, texts in by_key.items():
            faults.add(key, _joined(list(dict.fromkeys(texts))))
        return None


def fields_at(model: type[BaseModel], where: KeyPath) -> dict[str, Any]:
    """The fields of the model that the keys ``where`` lead to from ``model``; empty where no model is."""
    fields = model.model_fields
    for part in where:
        field = fields.get(part) if isinstance(part, str) else None
        nested = [kind for kind in _alternatives(field.annotation) if _is_model(kind)] if field else []
        if not nested:
            return {}
        fields = nested[0].model_fields
    return fields


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_model(kind: object) -> bool:
    return typing.get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel)


def _key_of(location: tuple[int | str, ...], found: object, *, is_missing: bool) -> KeyPath:
    """pydantic's location without the names of union branches: only keys that stand in the file, and the last one."""
    key: list[int | str] = []
    for part in location:
        if isinstance(found, dict) and (part in found or is_missing):
            key.append(part)
            found = found.get(part)
        elif isinstance(found, list) and isinstance(part, int):
            key.append(part)
            found = found[part]
    return tuple(key)


def _in_words(model: type[BaseModel], where: KeyPath, detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        hint = nearest(str(where[-1]), fields_at(model, where[:-1]))
        return f"unknown key; {hint}"
    if kind == "missing":
        return "this required key is missing"
    if kind == "value_error":
        return str(context["error"])
    found = shown(detail["input"])
    if kind == "literal_error":
        return f"found {found}; {context['expected']} is right"
    right = _RIGHT.get(kind)
    if right is None:
        right = detail["msg"].removeprefix("Input should be ").removeprefix("Value should have ")
    return f"found {found}; {right} is right"


def _joined(texts: list[str]) -> str:
    """The alternatives of a union as one sentence."""
    start = texts[0].partition("; ")[0]
    if len(texts) > 1 and all(text.startswith(f"{start}; ") and text.endswith(" is right") for text in texts):
        choices = [text.removeprefix(f"{start}; ").removesuffix(" is right") for text in texts]
        return f"{start}; {' or '.join(choices)} is right"
    return ", and ".join(texts)
