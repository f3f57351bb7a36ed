"""The option file as a JSON schema (draft 7), for editors that complete keys and underline faults while one types.

It is made from what checks option files: the pydantic models, and the signatures of the registered classes. It is laxer
where they ask more than a schema can say; `load_options` has the last word.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mambair.options.compat import IGNORED
from mambair.options.schema import SCHEDULES, LoaderOptions, MuonOptions, Options, TrainOptions
from mambair.options.signatures import MAPPINGS, SEQUENCES, named_parameters, type_hints
from mambair.registry import (
    ARCH_REGISTRY,
    BASICSR_PREFIX,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

JSON = dict[str, Any]

_PLAIN: dict[Any, str] = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}
_PHASES = r"^(train|val(_\d+)?|test(_\d+)?)$"
_LEGACY: JSON = {"description": "Of published option files; has no effect here.", "deprecated": True}
# of torch's optimisers, whose other arguments differ from version to version
_OPTIMIZER_KEYS: dict[str, tuple[str, ...]] = {
    "Adam": ("lr", "betas", "eps", "weight_decay", "amsgrad"),
    "AdamW": ("lr", "betas", "eps", "weight_decay", "amsgrad"),
    "SGD": ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    "Adan": ("lr", "eps", "weight_decay", "weight_decouple", "max_grad_norm"),
    "SOAP": ("lr", "betas", "eps", "weight_decay", "shampoo_beta", "precondition_frequency", "max_precondition_dim"),
    "ScheduleFreeAdamW": ("lr", "betas", "eps", "weight_decay", "r", "weight_lr_power"),
}
_BASE = "An option file, relative to this one, whose keys hold where this file does not state them."
_PAIR: JSON = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_FLAG: JSON = {"type": "boolean"}
_OPTIMIZER_TYPES: JSON = {"betas": _PAIR, "amsgrad": _FLAG, "nesterov": _FLAG, "weight_decouple": _FLAG}


def option_file_schema() -> JSON:
    """The schema of training and test files, as plain values for ``json.dumps``."""
    root = _section(Options, IGNORED[""])
    properties = root["properties"]
    properties["model_type"] |= {"anyOf": _names(MODEL_REGISTRY)}
    datasets = [(name, _dataset(each)) for name, each in DATASET_REGISTRY]
    properties |= _top_level_keys()
    properties["datasets"] |= {
        "patternProperties": {_PHASES: _by_type(datasets, DATASET_REGISTRY)},
        "additionalProperties": False,
    }
    networks = [(name, _arguments(each, IGNORED.get(f"network_g of {name}", ()))) for name, each in ARCH_REGISTRY]
    for key in ("network_g", "network_d", "network_g_teacher"):
        properties[key] = _or_null(_by_type(networks, ARCH_REGISTRY)) | _said(Options, key)
    properties["path"] |= _section(Options.model_fields["path"].annotation, IGNORED["path"])
    properties["logger"] |= _section(Options.model_fields["logger"].annotation)
    properties["train"] = _or_null(_train()) | _said(Options, "train")
    val = _section(Options.model_fields["val"].annotation, IGNORED["val"])
    val["properties"]["metrics"]["additionalProperties"] = _metrics()
    properties["val"] |= val
    properties["base"] = {"type": ["string", "null"], "description": _BASE}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Option file of mambair: training or test",
        **_without_required(root),
        "if": {"not": {"required": ["base"]}},
        "then": _only_required(root),
    }


def _without_required(schema: Any) -> Any:
    """A schema that leaves out which keys must be there: a file with a base may leave out any."""
    if isinstance(schema, list):
        return [_without_required(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "required" or not isinstance(value, list)}
    return {key: value if key == "if" else _without_required(value) for key, value in kept.items()}


def _only_required(schema: Any) -> Any:
    """The rest of the schema: `required` and the way to it; empty where nothing is required."""
    if isinstance(schema, list):
        kept = [_only_required(each) for each in schema]
        # of a choice (anyOf) no alternative may be left out; each is recognised by its type
        return [new or _types(old) for new, old in zip(kept, schema, strict=True)] if any(kept) else []
    if not isinstance(schema, dict):
        return {}
    kept = {key: each for key, value in schema.items() if key != "if" and (each := _only_required(value))}
    if isinstance(schema.get("required"), list):
        kept["required"] = schema["required"]
    return {**({"if": schema["if"]} if "if" in schema else {}), **_types(schema), **kept} if kept else {}


def _types(schema: Any) -> JSON:
    """The `type` of a schema, if it has one; "type" may also be the name of a property."""
    known = isinstance(schema, dict) and isinstance(schema.get("type"), str | list)
    return {"type": schema["type"]} if known else {}


def _top_level_keys() -> JSON:
    """Keys of training data that may stand at the top level, too."""
    models = [dataset.Options for _, dataset in DATASET_REGISTRY if hasattr(dataset.Options, "TOP_LEVEL_KEYS")]
    fields = {key: model.model_fields[key] for model in models for key in sorted(model.TOP_LEVEL_KEYS)}
    return {key: _field(field) | {"description": f"As datasets.train.{key}."} for key, field in fields.items()}


def _metrics() -> JSON:
    metrics = [(name, _arguments(each, given=("img", "img2"))) for name, each in METRIC_REGISTRY]
    for _, metric in metrics:
        metric["properties"]["better"] = {"enum": ["higher", "lower"], "description": "Which values are better."}
    return _by_type(metrics, METRIC_REGISTRY)


def _train() -> JSON:
    section = _section(TrainOptions)
    losses = _by_type([(name, _arguments(each)) for name, each in LOSS_REGISTRY], LOSS_REGISTRY)
    for key in TrainOptions.model_fields:
        if key.endswith("_opt"):
            several = (
                []
                if key in ("gan_opt", "ldl_opt", "teacher_opt")
                else [{"type": "array", "items": losses, "minItems": 1}]
            )
            section["properties"][key] = {"anyOf": [_or_null(losses), *several]} | _said(TrainOptions, key)
    optimizers = []
    for name, keys in _OPTIMIZER_KEYS.items():
        arguments = {key: _OPTIMIZER_TYPES.get(key, {"type": "number"}) for key in keys}
        optimizers.append((name, {"properties": arguments, "required": ["lr"], "additionalProperties": True}))
    optimizers.append(("Muon", _section(MuonOptions)))
    section["properties"]["optim_g"] = _by_type(optimizers) | _said(TrainOptions, "optim_g")
    section["properties"]["optim_d"] = _or_null(_by_type(optimizers)) | _said(TrainOptions, "optim_d")
    schedules = [(name, _section(model)) for name, model in SCHEDULES.items()]
    section["properties"]["scheduler"] = _or_null(_by_type(schedules)) | _said(TrainOptions, "scheduler")
    return section


def _dataset(dataset: Any) -> JSON:
    own, loader = _section(dataset.Options), _section(LoaderOptions)
    legacy = dict.fromkeys(sorted(IGNORED["datasets"] - dataset.Options.model_fields.keys()), _LEGACY)
    required = [key for key in own.get("required", []) if key != "type"]
    return {
        "properties": {**own["properties"], **loader["properties"], **legacy},
        "additionalProperties": False,
        "required": required,
        "description": _summary(dataset),
    }


def _by_type(choices: Iterable[tuple[str, JSON]], registry: Registry | None = None) -> JSON:
    """A mapping whose ``type`` decides which other keys it has; names of basicsr's are let through with any keys."""
    listed = [(name, dict(choice)) for name, choice in choices]
    names = [name for name, _ in listed]
    kind: JSON = {"enum": names} if registry is None else {"anyOf": _names(registry)}
    about = "; ".join(f"{name}: {choice['description']}" for name, choice in listed if choice.get("description"))
    if about:
        kind["description"] = about
    branches = []
    for name, choice in listed:
        choice.pop("description", None)
        choice.pop("type", None)
        choice["properties"] = {"type": True, **{k: v for k, v in choice["properties"].items() if k != "type"}}
        branches.append({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": choice})
    return {"type": "object", "properties": {"type": kind}, "required": ["type"], "allOf": branches}


def _names(registry: Registry) -> list[JSON]:
    return [{"enum": registry.keys()}, {"type": "string", "description": f"or basicsr's, also as {BASICSR_PREFIX}NAME"}]


def _section(model: Any, ignored: Iterable[str] = ()) -> JSON:
    """The keys of a pydantic model, and those that are accepted without effect."""
    properties = {key: _field(field) for key, field in model.model_fields.items()}
    properties |= dict.fromkeys(sorted(set(ignored) - properties.keys()), _LEGACY)
    section: JSON = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [key for key, field in model.model_fields.items() if field.is_required()]
    return section | ({"required": required} if required else {})


def _field(field: FieldInfo) -> JSON:
    found = of_annotation(field.annotation) | _bounds(field.metadata)
    if field.description:
        found["description"] = field.description
    return found | _default(field.default)


def _said(model: type[BaseModel], key: str) -> JSON:
    return {"description": model.model_fields[key].description}


def _or_null(schema: JSON) -> JSON:
    return {**schema, "type": [schema["type"], "null"]}


def _default(value: Any) -> JSON:
    if value is PydanticUndefined or value is inspect.Parameter.empty or value is None:
        return {}
    plain = list(value) if isinstance(value, tuple) else value
    return {"default": plain} if isinstance(plain, bool | int | float | str | list) else {}


def _arguments(callable_: Callable[..., Any], ignored: Iterable[str] = (), given: tuple[str, ...] = ()) -> JSON:
    """The arguments of a class or function as the keys of a mapping."""
    hints, told = type_hints(callable_), described_arguments(callable_)
    properties: JSON = {}
    required = []
    for key, parameter in named_parameters(callable_).items():
        if key in given:
            continue
        properties[key] = of_annotation(hints.get(key, Any)) | _default(parameter.default)
        if key in told:
            properties[key]["description"] = told[key]
        if parameter.default is inspect.Parameter.empty:
            required.append(key)
    properties |= dict.fromkeys(sorted(set(ignored) - properties.keys()), _LEGACY)
    found: JSON = {"properties": properties, "additionalProperties": False, "description": _summary(callable_)}
    return found | ({"required": required} if required else {})


def of_annotation(annotation: Any) -> JSON:
    """A type annotation as a schema; one that says nothing about YAML values allows everything."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return of_annotation(arguments[0]) | _bounds(arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _any_of([of_annotation(option) for option in arguments])
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if (origin or annotation) in SEQUENCES:
        items = [item for item in arguments if item is not Ellipsis]
        found: JSON = {"type": "array", **({"items": of_annotation(items[0])} if items else {})}
        is_fixed = (origin or annotation) is tuple and items and Ellipsis not in arguments
        return found | ({"minItems": len(items), "maxItems": len(items)} if is_fixed else {})
    if (origin or annotation) in MAPPINGS:
        return {"type": "object"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _section(annotation)
    plain = _PLAIN.get(type(None) if annotation is None else annotation)
    return {"type": plain} if plain else {}


def _any_of(options: list[JSON]) -> JSON:
    if any(not option for option in options):
        return {}
    if all(option.keys() == {"type"} for option in options):
        return {"type": list(dict.fromkeys(option["type"] for option in options))}
    return {"anyOf": options}


def _bounds(metadata: Iterable[Any]) -> JSON:
    """What ``Field(ge=...)`` and its like say."""
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    found: JSON = {}
    for each in metadata:
        if isinstance(each, FieldInfo):
            found |= _bounds(each.metadata)
        found |= {name: getattr(each, bound) for bound, name in names.items() if getattr(each, bound, None) is not None}
    return found


def described_arguments(callable_: Callable[..., Any]) -> dict[str, str]:
    """Argument -> what the docstring's ``Args:`` says of it."""
    text = inspect.getdoc(callable_) or ""
    block = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    told: dict[str, str] = {}
    for entry in re.findall(r"^ {4}(\S.*(?:\n {8}.*)*)", block[1] if block else "", re.MULTILINE):
        names, colon, meaning = entry.partition(": ")
        if colon:
            told |= {name.strip(): " ".join(meaning.split()) for name in names.split(",")}
    return told


def _summary(callable_: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(callable_) or "").partition("\n\n")[0].split())
