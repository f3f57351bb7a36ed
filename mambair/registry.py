"""Registries of architectures, data sets, losses, metrics and models, and the one place where BasicSR is touched.

A name is looked up among ours first and then in basicsr's registry of the same kind, where basicsr is installed;
``basicsr/NAME`` skips ours. Nothing here needs basicsr, and importing this module imports neither torch nor basicsr.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

logger = logging.getLogger(__name__)

BASICSR_PREFIX = "basicsr/"


class Registry:
    """A named table from a published name to a class or function.

    Args:
        kind: what is registered, singular, for messages ("architecture").
        basicsr_name: the attribute of ``basicsr.utils.registry`` that holds BasicSR's table of the same kind.
        rooms: modules whose import fills this registry; they are imported at the first look-up.
    """

    def __init__(self, kind: str, basicsr_name: str, rooms: tuple[str, ...]) -> None:
        self.kind = kind
        self.basicsr_name = basicsr_name
        self._rooms = rooms
        self._filled = False
        self._entries: dict[str, Any] = {}

    def register(self, entry: Any | None = None, *, name: str | None = None) -> Any:
        """Add ``entry`` under ``name`` (default: its own ``__name__``); usable as ``@REGISTRY.register()``.

        Raises:
            ValueError: the name is taken by another object; the registry stays as it was.
        """
        if entry is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or entry.__name__
        known = self._entries.get(key)
        if known is not None and known is not entry:
            raise ValueError(
                f"{self.kind} {key!r} is registered already (by {known.__module__}); choose another name for "
                f"the one in {entry.__module__}"
            )
        self._entries[key] = entry
        return entry

    def get(self, name: str) -> Any:
        """Return the object registered as ``name``: ours, else basicsr's; ``basicsr/NAME`` is basicsr's at once.

        Raises:
            KeyError: nobody knows the name; the message lists the nearest ones.
        """
        if name.startswith(BASICSR_PREFIX):
            entry = self._from_basicsr(name.removeprefix(BASICSR_PREFIX))
        else:
            self._fill()
            entry = self._entries.get(name) or self._from_basicsr(name)
        if entry is None:
            raise KeyError(self._unknown(name))
        return entry

    def is_ours(self, name: str) -> bool:
        """Whether ``name`` is found in our own table (basicsr is not asked)."""
        self._fill()
        return name in self._entries

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self.get(name)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._fill()
        return iter(sorted(self._entries.items()))

    def keys(self) -> list[str]:
        """Our registered names, sorted."""
        self._fill()
        return sorted(self._entries)

    def _fill(self) -> None:
        if not self._filled:
            self._filled = True  # before the imports: the rooms register themselves while they are imported
            for room in self._rooms:
                importlib.import_module(room)

    def _from_basicsr(self, name: str) -> Any | None:
        table = basicsr_table(self.basicsr_name)
        if table is None:
            return None
        # basicsr files some entries under "NAME_basicsr" when two packages register the same name
        entries = table._obj_map
        return entries.get(name) or entries.get(f"{name}_basicsr")

    def _unknown(self, name: str) -> str:
        candidates = self.keys()
        near = difflib.get_close_matches(name.removeprefix(BASICSR_PREFIX), candidates, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(candidates)}"
        basicsr = "" if basicsr_installed() else " (basicsr, where more are defined, is not installed)"
        return f"no {self.kind} named {name!r}; {hint}{basicsr}"


ARCH_REGISTRY = Registry("architecture", "ARCH_REGISTRY", ("mambair.archs",))
DATASET_REGISTRY = Registry("data set", "DATASET_REGISTRY", ("mambair.data",))
LOSS_REGISTRY = Registry("loss", "LOSS_REGISTRY", ("mambair.losses",))
METRIC_REGISTRY = Registry("metric", "METRIC_REGISTRY", ("mambair.metrics",))
MODEL_REGISTRY = Registry("model type", "MODEL_REGISTRY", ("mambair.models",))
ALL_REGISTRIES = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)


def arguments_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a block of an option file that are arguments of what its ``type`` names: all but ``type``."""
    return {key: value for key, value in block.items() if key != "type"}


def basicsr_installed() -> bool:
    """Whether a package named basicsr can be found; it is not imported."""
    # None in sys.modules is Python's way of blocking an import; find_spec knows it, and that is not installed
    return sys.modules.get("basicsr") is not None or importlib.util.find_spec("basicsr") is not None


def import_basicsr() -> types.ModuleType:
    """Import basicsr, after putting back the torchvision module it expects.

    basicsr 1.4.2 imports ``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed; the one function
    it takes from there (``rgb_to_grayscale``) lives on in ``torchvision.transforms.functional``. The stand-in module
    below can be deleted when a basicsr release imports it from the new place.

    Raises:
        ImportError: basicsr or torchvision is missing or cannot be imported.
    """
    removed = "torchvision.transforms.functional_tensor"
    if "basicsr" not in sys.modules and _lacks(removed):
        functional = importlib.import_module("torchvision.transforms.functional")
        stand_in = types.ModuleType(removed, "Stand-in for the module torchvision 0.17 removed.")
        stand_in.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[removed] = stand_in
    return importlib.import_module("basicsr")


def _lacks(module: str) -> bool:
    """Whether torchvision is installed and has no such module."""
    if importlib.util.find_spec("torchvision") is None or module in sys.modules:
        return False
    return importlib.util.find_spec(module) is None


def basicsr_table(basicsr_name: str) -> Any | None:
    """BasicSR's registry of that name, or None where basicsr is not installed."""
    if not basicsr_installed():
        return None
    import_basicsr()
    return getattr(importlib.import_module("basicsr.utils.registry"), basicsr_name)


def connect_basicsr(*registries: Registry) -> None:
    """Add to basicsr's registries what they lack, so that our names work in BasicSR's own pipelines.

    A name basicsr has already is left alone and named in one log line.

    Args:
        registries: which of ours to offer; all of them by default.

    Raises:
        ImportError: basicsr cannot be imported.
    """
    import_basicsr()
    taken: list[str] = []
    for registry in registries or ALL_REGISTRIES:
        table = basicsr_table(registry.basicsr_name)
        assert table is not None, "import_basicsr() has just succeeded"
        for name, entry in registry:
            present = table._obj_map.get(name)
            if present is None:
                table._obj_map[name] = entry
            elif present is not entry:
                taken.append(name)
    if taken:
        logger.info("basicsr keeps its own %s", ", ".join(sorted(taken)))


def join_basicsr_log() -> None:
    """Send our log where basicsr's goes, if nobody listens to ours: what happens inside basicsr's own pipeline."""
    own, theirs = logging.getLogger("mambair"), logging.getLogger("basicsr")
    if not own.hasHandlers() and theirs.handlers:
        own.setLevel(theirs.level)
        for handler in theirs.handlers:
            own.addHandler(handler)
