"""Modules of the user, imported by name or file, so that what they register can be named everywhere.

The names come from the command line (``--import``) only: an option file, a checkpoint or the environment must not run
code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from mambair.registry import ALL_REGISTRIES
from mambair.system.errors import RequestError

_imported: list[str] = []


def imported_modules() -> tuple[str, ...]:
    """What `import_module` has imported: dotted names and absolute paths, for a process that must import the same."""
    return tuple(_imported)


def import_modules(names: Iterable[str]) -> None:
    """Import each module again, in a process started by one that has; see `import_module`."""
    for name in names:
        import_module(name)


def import_module(name: str) -> str:
    """Import a module of the user, whose functions and classes register themselves (`mambair.registry`).

    A file becomes the module of its stem, and its folder is appended to ``sys.path``, so that other processes can
    unpickle its classes and it can import its neighbours.

    Args:
        name: a dotted name on ``sys.path``, or a path to a .py file.

    Returns:
        One line on what was imported and what it registered.

    Raises:
        RequestError: there is no such module, it raises while it is imported, or it registers a name that exists.
    """
    before = _registered()  # also fills the registries, so that a name that exists is met in the user's module
    path = Path(name).absolute() if name.endswith(".py") else None
    module_name = name if path is None else _prepare_file(path)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise RequestError(_reason(name, module_name, error)) from error
    if getattr(module, "__file__", None) is None and hasattr(module, "__path__"):  # a namespace package runs nothing
        raise RequestError(f"{name}: a folder without __init__.py; name a module in it, such as {name}.my_code")
    identity = name if path is None else str(path)
    if identity not in _imported:
        _imported.append(identity)
    new = [entry for entry in _registered() if entry not in before]
    return f"imported {name} ({getattr(module, '__file__', None)}): {', '.join(new) or 'nothing new registered'}"


def _registered() -> list[str]:
    return [f"{registry.kind} {name}" for registry in ALL_REGISTRIES for name, _ in registry]


def _prepare_file(path: Path) -> str:
    """Make a file importable under its stem, and return that.

    Raises:
        RequestError: there is no such file, or its stem cannot be a name of its own.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    if not path.stem.isidentifier():
        raise RequestError(f"{path}: rename the file: {path.stem!r} is not a valid name of a Python module")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    loaded = sys.modules.get(path.stem)
    spec = importlib.util.find_spec(path.stem) if loaded is None else None
    other = getattr(loaded, "__file__", None) if spec is None else spec.origin
    if other is None or not Path(other).is_file() or not path.samefile(other):
        raise RequestError(f"{path}: rename the file: a module {path.stem!r} exists already ({other or 'built in'})")
    return path.stem


def _reason(name: str, module_name: str, error: BaseException) -> str:
    """One line."""
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        file = f"{module_name.replace('.', '/')}.py"
        hint = f"; for the file in this folder write {file}" if Path(file).is_file() else ""
        return f"{name}: no module {error.name!r} on sys.path{hint}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if Path(frame.filename).stem == module_name.rpartition(".")[2]]
    where = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
    return f"{name}: {type(error).__name__} while it is imported{where}: {text}"
