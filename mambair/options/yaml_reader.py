"""Reading option files: YAML 1.2's core schema (https://yaml.org/spec/1.2.2), with the line of every key.

Safe by construction: nodes are turned into plain values here, so no tag can name a Python object; aliases are counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from mambair.options.errors import FaultList, KeyPath, OptionsError, shown

_NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
MAX_DEPTH = 30
MAX_DIGITS = 18
_MERGE = "<<"  # YAML's key for the keys of another mapping

Place = Callable[[int], str]  # a line number -> what a message starts with

_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"  # the tag of an unquoted scalar without a tag of its own
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass
class OptionFile:
    """What an option file says, and where.

    Attributes:
        name: the file as the user named it.
        data: the mapping of the file, in plain Python values.
        places: "file:line" of every key and list item.
    """

    name: str
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)


def read_yaml_file(path: str | Path) -> OptionFile:
    """Read one YAML file by itself; `mambair.options.base_file` adds the file it is based on.

    Raises:
        OptionsError: the file cannot be read, is not YAML, holds a tag, a duplicate key or a key that is not text, or
            expands to more than MAX_VALUES values.
    """
    name = str(path)
    try:
        # a named pipe that nobody writes to is empty, not waited for; one that a shell made for <(command) is read
        descriptor = os.open(path, os.O_RDONLY | _NOT_WAITING | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if _NOT_WAITING:
                os.set_blocking(descriptor, True)
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise OptionsError([f"{name}: cannot be read: {error.strerror}; give the path of an option file"]) from error
    if len(content) > MAX_BYTES:
        raise OptionsError([f"{name}: larger than {MAX_BYTES:,} bytes; this is no option file"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise OptionsError([f"{name}:{line}: not UTF-8 text; save the file as UTF-8"]) from error
    places: dict[KeyPath, str] = {}
    data = _read(text, lambda line: f"{name}:{line}", (), places)
    if not isinstance(data, dict):
        raise OptionsError([f"{name}:1: found {shown(data)}; an option file is a mapping ('name: experiment')"])
    return OptionFile(name, data, places)


def read_value(text: str, place: str, path: KeyPath) -> Any:
    """Read one value written as YAML (``20``, ``1e-4``, ``[1, 2]``), as ``--force_yml`` gives it.

    Args:
        text: the value.
        place: what messages start with.
        path: the key whose value it is.

    Raises:
        OptionsError: not a YAML value.
    """
    return _read(text, lambda line: place, path, {})


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.2 reads as something else; writes a repeated value again instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _written(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    is_number = _INT.fullmatch(text) or not isinstance(_plain(text), str)
    return dumper.represent_scalar(f"{_TAG}str", text, style="'" if is_number else None)


_Dumper.add_representer(str, _written)


def as_yaml(data: dict[str, Any]) -> str:
    """Write plain values as the text of an option file, which reads back as the same values."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _read(text: str, place: Place, path: KeyPath, places: dict[KeyPath, str]) -> Any:
    """The plain value of a YAML text; the places of its keys are added to ``places``."""
    node = _compose(text, place)
    if node is None:
        return None
    faults = FaultList(places, place(1))
    value = _Reader(place, places, faults).value(node, path)
    faults.raise_if_any()
    return value


class _Loader(yaml.SafeLoader):
    """Parses only; unquoted scalars are marked, so that YAML 1.2's rules can be applied to them instead of 1.1's."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > 2 * MAX_VALUES:  # keys and values
            raise ComposerError(None, None, f"more than {MAX_VALUES:,} values", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else f"{_TAG}str"
        return super().resolve(kind, value, implicit)


def _compose(text: str, place: Place) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise OptionsError([f"{place(line)}: {_syntax_fault(error, text, line)}"]) from error
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        fault = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML; delete it"
        raise OptionsError([f"{place(line)}: {fault}"]) from error
    except (ValueError, OverflowError) as error:  # of \U00110000, %YAML 1.999...
        raise OptionsError([f"{place(1)}: not YAML: an escape or a version that does not exist ({error})"]) from error
    except RecursionError as error:
        raise OptionsError([f"{place(1)}: nested too deeply; option files have at most {MAX_DEPTH} levels"]) from error


def _syntax_fault(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    content = lines[line - 1] if line <= len(lines) else ""
    if "\t" in content[: len(content) - len(content.lstrip())] or "'\\t'" in (error.problem or ""):
        return "a tab stands here; YAML indents with spaces only"
    if isinstance(error, ComposerError) and "single document" in (error.context or ""):
        return "a second document ('---') starts here; an option file holds one"
    fault = error.problem or "not YAML"
    if "undefined alias" in fault:
        return f"{fault}; write the value itself or define the anchor (&name) above"
    if "could not find expected ':'" in fault or "mapping values are not allowed" in fault:
        return f"{fault}; write 'key: value', one key a line, keys of one level indented alike"
    return f"{fault}; check brackets, quotes and the indentation of the lines around"


def _plain(text: str) -> Any:
    """The value of an unquoted scalar in YAML 1.2's core schema: yes and on are text, 1e-4 is a number, 010 is ten."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".i", "i").replace(".I", "I").replace(".n", "n").replace(".N", "N"))
    return text


class _Reader:
    """Turns YAML nodes into plain values, noting places and faults, within a budget of values."""

    def __init__(self, place: Place, places: dict[KeyPath, str], faults: FaultList) -> None:
        self._place = place
        self._places = places
        self._faults = faults
        self._values = 0
        self._merges = 0  # that are in one another, now

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self._place(node.start_mark.line + 1)
        self._values += 1
        if self._values > MAX_VALUES:
            raise OptionsError([f"{place}: expands to more than {MAX_VALUES:,} values; remove the aliases"])
        if len(path) > MAX_DEPTH:
            text = f"nested more than {MAX_DEPTH} levels deep; does an alias (*name) contain itself?"
            raise OptionsError([f"{place}: {text}"])
        if path:
            self._places.setdefault(path, place)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node.tag, path, "map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node.tag, path, "seq")
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), node
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.value == _MERGE and key_node.tag == _PLAIN:
                merged |= self._merged(value_node, path, self._place(key_node.start_mark.line + 1))
        for key_node, value_node in node.value:
            place = self._place(key_node.start_mark.line + 1)
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in (_PLAIN, f"{_TAG}str"):
                self._faults.add(path, "a key that is not a plain word; write 'key: value'", place)
            elif key == _MERGE and key_node.tag == _PLAIN:
                continue
            elif key in result:
                first = self._places[(*path, key)].rpartition(":")[2]
                self._faults.add((*path, key), f"written twice (first in line {first}); keep one of the two", place)
            else:
                self._places[(*path, key)] = place
                result[key] = self.value(value_node, (*path, key))
        return {**merged, **result}

    def _merged(self, node: yaml.Node, path: KeyPath, place: str) -> dict[str, Any]:
        """The keys that ``<<: *name`` or ``<<: [*one, *two]`` brings into the mapping at ``path``; the first wins."""
        self._merges += 1
        if self._merges > MAX_DEPTH:
            raise OptionsError([f"{place}: {_MERGE} more than {MAX_DEPTH} times in one another; does it name itself?"])
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for source in reversed(sources):
            if isinstance(source, yaml.MappingNode):
                result |= self.value(source, path)
            else:
                self._faults.add(path, f"{_MERGE}: expected a mapping (*name), or a list of mappings", place)
        self._merges -= 1
        return result

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.tag == f"{_TAG}str":
            return node.value
        if node.tag == _PLAIN:
            return self._checked(node.value, path)
        explicit = node.tag.removeprefix(_TAG)
        types = {"float": (int, float), "int": (int,), "bool": (bool,), "null": (type(None),)}
        if explicit not in types:
            self._refuse_tag(node.tag, path)
            return None
        value = self._checked(node.value, path)
        if not isinstance(value, types[explicit]) or (isinstance(value, bool) and explicit != "bool"):
            self._faults.add(path, f"found !!{explicit} {node.value}; leave the tag out, or give the value it names")
            return None
        return float(value) if explicit == "float" else value

    def _checked(self, text: str, path: KeyPath) -> Any:
        if _INT.fullmatch(text) and (len(text.lstrip("+-0")) > MAX_DIGITS or len(text) > 4 * MAX_DIGITS):
            self._faults.add(path, f"a number of {len(text)} digits; at most {MAX_DIGITS} make sense here")
            return None
        return _plain(text)

    def _check_tag(self, tag: str, path: KeyPath, expected: str) -> None:
        if tag != f"{_TAG}{expected}":
            self._refuse_tag(tag, path)

    def _refuse_tag(self, tag: str, path: KeyPath) -> None:
        written = f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
        self._faults.add(path, f"the tag {written} is refused; option files hold plain values only, write the value")
