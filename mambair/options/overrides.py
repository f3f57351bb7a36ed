"""``--force_yml train:total_iter=20``: single values of an option file replaced on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mambair.options.errors import OptionsError, shown
from mambair.options.yaml_reader import OptionFile, read_value


def apply_overrides(file: OptionFile, overrides: Sequence[str]) -> None:
    """Put each ``key:key=value`` into ``file``; the value is read as YAML by the reader of option files.

    Whether the key exists is for the schema to say; the place of an overridden key is the override itself.

    Raises:
        OptionsError: listing every override that is not of that form or leads through a value that is no mapping.
    """
    faults: list[str] = []
    for override in overrides:
        try:
            _apply(file, override)
        except OptionsError as error:
            faults.extend(error.faults)
    if faults:
        raise OptionsError(faults)


def _apply(file: OptionFile, override: str) -> None:
    place = f"--force_yml {override}"
    written, equals, text = override.partition("=")
    keys = [key.strip() for key in written.split(":")]
    if not equals or not all(keys):
        raise OptionsError([f"{place}: not an override; write key:key=value, such as train:total_iter=20"])
    mapping: Any = file.data
    for depth, key in enumerate(keys[:-1], start=1):
        if mapping.get(key) is None:
            mapping[key] = {}
        mapping = mapping[key]
        if not isinstance(mapping, dict):
            raise OptionsError([f"{place}: {'.'.join(keys[:depth])} holds {shown(mapping)}; it has no keys below it"])
    path = tuple(keys)
    mapping[keys[-1]] = read_value(text, place, path)
    for stale in [known for known in file.places if known[: len(path)] == path]:
        del file.places[stale]
    file.places[path] = place
