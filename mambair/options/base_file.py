"""``base: other.yml``: an option file that states only what differs from another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mambair.options.errors import KeyPath, OptionsError, shown
from mambair.options.yaml_reader import OptionFile, as_yaml, read_yaml_file

MAX_FILES = 5  # an option file, its base, the base of that, ...
_HEADER = "# {name} merged with its base {base}\n"


def read_option_file(path: str | Path) -> OptionFile:
    """Read an option file, merged over the file that its key ``base`` names.

    Mappings are merged key by key; a mapping whose ``type`` differs replaces the one of the base. Any other value,
    lists too, replaces the value of the base, and null removes the key of the base. The key ``base`` itself is not
    part of the result. Every key keeps the place where it is written.

    Args:
        path: a YAML file. A base is named relative to the folder of the file that names it.

    Raises:
        OptionsError: a file cannot be read or is not YAML; a base is missing, or leads back to a file that is based on
            it, or more than `MAX_FILES` files are chained.
    """
    files = [read_yaml_file(path)]
    seen = [os.path.realpath(path)]
    while (base := files[-1].data.pop("base", None)) is not None:
        place = files[-1].places["base",]
        base_path = _base_path(base, files[-1].name, place)
        if os.path.realpath(base_path) in seen:
            raise OptionsError([f"{place}: base: {base} is based on this file; a file cannot be its own base"])
        if len(files) == MAX_FILES:
            raise OptionsError([f"{place}: base: a chain of more than {MAX_FILES} files; merge some of them"])
        seen.append(os.path.realpath(base_path))
        files.append(read_yaml_file(base_path))
    merged = files.pop()
    for file in reversed(files):
        _merge(merged.data, file.data, (), merged.places, file.places)
    return OptionFile(str(path), merged.data, merged.places)


def merged_text(path: Path) -> bytes:
    """What an option file holds; of one with a base, the single file that says the same, without the comments."""
    base = read_yaml_file(path).data.get("base")
    if base is None:
        return path.read_bytes()
    return (_HEADER.format(name=path.name, base=base) + as_yaml(read_option_file(path).data)).encode()


def _base_path(base: object, name: str, place: str) -> str:
    if not isinstance(base, str) or not base.strip() or "\0" in base:
        raise OptionsError([f"{place}: base: expected the path of an option file, got {shown(base)}"])
    path = os.path.join(os.path.dirname(name), os.path.expanduser(base))  # noqa: PTH111, PTH118, PTH120
    if not os.path.isfile(path):  # noqa: PTH113
        folder = os.path.dirname(name) or "."  # noqa: PTH120
        raise OptionsError([f"{place}: base: there is no file {base} in {folder}; the path is relative to this file"])
    return path


def _merge(
    base: dict[str, Any],
    changes: dict[str, Any],
    path: KeyPath,
    base_places: dict[KeyPath, str],
    places: dict[KeyPath, str],
) -> None:
    """Change ``base``, which stands at ``path``, and the places of its keys."""
    for key, value in changes.items():
        here, old = (*path, key), base.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _is_other_type(value, old):
            base_places[here] = places[here]
            _merge(old, value, here, base_places, places)
            continue
        length = len(here)
        for stale in [known for known in base_places if known[:length] == here]:
            del base_places[stale]
        if value is None and key in base:
            del base[key]
        else:
            base[key] = value
            base_places |= {known: place for known, place in places.items() if known[:length] == here}


def _is_other_type(value: dict[str, Any], old: dict[str, Any]) -> bool:
    return "type" in value and "type" in old and value["type"] != old["type"]
