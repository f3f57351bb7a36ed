"""What is wrong with an option file: one line per fault, all of them in one OptionsError."""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mambair.system.console import printable
from mambair.system.tables import first_line

KeyPath = tuple[str | int, ...]


class OptionsError(ValueError):
    """An option file that cannot be run; the text lists every fault as ``file:line: key: what, what would be right``.

    Args:
        faults: the lines of the message, one fault each; control characters, which a key may hold, are escaped.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(map(printable, faults))
        super().__init__("\n".join(self.faults))


class SettingError(ValueError):
    """A value of an option file that proves wrong when something is made of it, before anything is started.

    Args:
        key: where the value stands in the file; empty where no single key is the cause.
        reason: what is wrong with it.
    """

    def __init__(self, key: KeyPath, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"{dotted(key)}: {reason}" if key else reason)


@contextlib.contextmanager
def made_of(*key: str | int) -> Iterator[None]:
    """Turn every error of the block into a `SettingError` at ``key``, unless it is one already."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:  # what is made may be anyone's code
        raise SettingError(key, _reason(error)) from error


def _reason(error: Exception) -> str:
    """The message of an error that was raised to be read, or else its class, its first line and its place."""
    if isinstance(error, OSError) or (isinstance(error, ValueError) and type(error) is not ValueError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    if isinstance(error, KeyError) and error.args:
        return f"the key {error.args[0]!r} is missing ({place} asks for it)"
    if type(error) is ValueError:
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)} ({place})"


class FaultList:
    """Collects faults together with the place of the key they belong to.

    Args:
        places: "file:line" of every key that was read; a key without a place gets that of its nearest parent.
        start: the place of faults that belong to no key.
    """

    def __init__(self, places: dict[KeyPath, str], start: str) -> None:
        self._places = places
        self._start = start
        self._faults: dict[tuple[KeyPath, str], tuple[str, int, str]] = {}  # (file, line, message)

    def add(self, path: KeyPath, text: str, place: str | None = None) -> None:
        """Note one fault at the key ``path`` (and in the line ``place``, if not the key's); twice counts once."""
        place = place or self.place(path)
        file, _, number = place.rpartition(":")
        line = f"{place}: {dotted(path)}: {text}"
        self._faults.setdefault((path, text), (file, int(number), line) if number.isdigit() else ("", 0, line))

    def has(self, path: KeyPath) -> bool:
        """Whether a fault is noted at ``path`` or below it: checks that need the value are then pointless."""
        return any(known[: len(path)] == path for known, _ in self._faults)

    def place(self, path: KeyPath) -> str:
        """Where the key stands, or else its nearest parent that was written down."""
        for length in range(len(path), 0, -1):
            place = self._places.get(path[:length])
            if place is not None:
                return place
        return self._start

    def lines(self) -> list[str]:
        """The faults as lines of a message, in the order of the file, or of the files, by name."""
        return [line for *_, line in sorted(self._faults.values(), key=lambda fault: fault[:2])]

    def raise_if_any(self) -> None:
        """Raise OptionsError when a fault was noted."""
        if self._faults:
            raise OptionsError(self.lines())


def dotted(path: KeyPath) -> str:
    """The key as messages write it: ``datasets.train.gt_size``, ``train.optim_g.betas[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(the whole file)"


def nearest(found: str, valid: Iterable[str]) -> str:
    """What to write instead of an unknown ``found``: the nearest valid names, or all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(found, names, n=2, cutoff=0.6)
    if len(near) == 2 and _likeness(found, near[1]) < _likeness(found, near[0]) - 0.04:
        near = near[:1]
    near = near or [name for name in names if name.lower() == found.lower()]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known here: {', '.join(names)}" if names else "no keys are known here"


def _likeness(found: str, name: str) -> float:
    return difflib.SequenceMatcher(None, name, found).ratio()


def shown(value: object) -> str:
    """A found value for a message, shortened, in YAML's words rather than Python's."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"a mapping with {_some(list(value))}" if value else "an empty mapping"
    text = repr(list(value)) if isinstance(value, Sequence) and not isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _some(names: Sequence[object]) -> str:
    listed = ", ".join(map(str, names[:4]))
    return listed if len(names) <= 4 else f"{listed}, ..."
