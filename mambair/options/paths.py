"""Where an option file's paths lead: data and weights that are read, folders that are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mambair.options.errors import FaultList, KeyPath, shown
from mambair.system.path_gate import is_reserved
from mambair.weights.addresses import PRETRAINED_FILE

_FORBIDDEN_IN_NAMES = frozenset('/\\<>:"|?*')
LONGEST_NAME = 200  # bytes; file systems take 255, and names of files made of it are longer
_ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = _ROOT if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "options").is_dir() else None
"""The folder of the repository; None where the package is installed: the folder around it is that of all packages."""


def check_plain_name(name: object, key: KeyPath, faults: FaultList, *, kind: str = "folder name") -> None:
    """Check text that becomes a folder's name or a part of a file's: one plain name on every system.

    Args:
        name: as written in the option file; the fault of another type than text is the schema's.
        key: where it is written.
        kind: what it becomes, for the message.
    """
    if not isinstance(name, str):
        return
    plain = name == name.strip() and name.strip(".") and name.isprintable() and len(name) <= 120 and _fits_a_disk(name)
    if not plain or is_reserved(name) or name.startswith((".", "-")) or _FORBIDDEN_IN_NAMES & set(name):
        rule = f"a plain {kind} is right: letters, digits, '_', '-', '.', no slashes, not '..'"
        faults.add(key, f"found {shown(name)}; {rule}")


def find(path: str) -> Path | None:
    """An existing file or folder: absolute or ``~``, else from the current directory, else from the checkout."""
    # os.path knows no error where a name is too long for the system, or "~" of nobody
    expanded = os.path.expanduser(path)  # noqa: PTH111
    found = (os.path.join(base, expanded) for base in _bases())  # noqa: PTH118
    return next((Path(each) for each in found if os.path.exists(each)), None)  # noqa: PTH110


def resolve(path: str, key: KeyPath, faults: FaultList, *, kind: str = "file", check: bool) -> str:
    """The absolute path of something to read; a fault when it is missing.

    Args:
        path: as written in the option file.
        key: where it is written.
        kind: "folder" or "file" of what is asked for; an LMDB is a folder.
        check: False leaves missing things alone.
    """
    if not path.strip() or "\0" in path:
        faults.add(key, f"found {shown(path)}; the path of a {kind} is right")
        return path
    found = find(path)
    if found is None:
        if check:
            places = (
                ""
                if Path(path).is_absolute() or path.startswith("~")
                else f" (looked in {' and '.join(map(str, _bases()))})"
            )
            faults.add(key, f"there is no {kind} {path}{places}; correct the path or put the data there")
        return str(Path.cwd() / os.path.expanduser(path))  # noqa: PTH111
    if check and (found.is_file() if kind == "folder" else found.is_dir()):
        other = "file" if kind == "folder" else "folder"
        faults.add(key, f"{path} is a {other}; the path of a {kind} is right")
    return str(found)


def resolve_weights(text: str, key: KeyPath, faults: FaultList, *, check: bool) -> str:
    """The absolute path of a file of weights; or the text itself where it names published weights.

    Names and addresses (`mambair.weights.fetch.locate`) are checked here and fetched by who needs the file. Arguments
    as in `resolve`.
    """
    if not text.strip() or "\0" in text:
        return resolve(text, key, faults, check=check)
    found = find(text)
    if found is not None and (found / PRETRAINED_FILE).is_file():
        return str(found / PRETRAINED_FILE)
    if found is None or found.is_dir():
        from mambair.weights import fetch  # imports torch

        try:
            fetch.resolve(text)
            return text
        except FileNotFoundError:
            pass
        except fetch.FetchError as error:
            if found is None:
                if check:
                    faults.add(key, str(error))
                return text
    return resolve(text, key, faults, check=check)


def complete_paths(opt: dict[str, Any], faults: FaultList, *, is_train: bool) -> None:
    """Fill ``opt["path"]`` with the folders to write, named as BasicSR names them, all below the current directory."""
    paths, name = opt["path"], opt["name"]
    root_key, parent = ("experiments_root", "experiments") if is_train else ("results_root", "results")
    written = paths.get(root_key)
    # abspath, unlike resolve, leaves links alone: experiments/ may well be a link to a larger disk
    root = Path.cwd() / parent / name if written is None else Path(os.path.abspath(written))  # noqa: PTH100
    if written is not None and not any(base in root.parents for base in _bases()):
        faults.add(("path", root_key), f"found {shown(written)}; a folder inside the current directory is right")
        return
    if written is not None and not all(_fits_a_disk(part) for part in root.parts):
        faults.add(("path", root_key), f"found {shown(written)}; names of at most {LONGEST_NAME} bytes are right")
        return
    if written is not None and is_train and _is_something_else(root):
        faults.add(("path", root_key), f"{written} is no experiment's folder and not empty; name a new folder")
        return
    paths[root_key] = str(root)
    paths["log"] = str(root)
    paths["visualization"] = str(root / "visualization")
    if is_train:
        paths["models"] = str(root / "models")
        paths["training_states"] = str(root / "training_states")
        paths["tb_logger"] = str(Path.cwd() / "tb_logger" / name)


def _fits_a_disk(name: str) -> bool:
    return "\0" not in name and len(os.fsencode(name)) <= LONGEST_NAME


def _is_something_else(root: Path) -> bool:
    """Whether a folder is in use for anything but an experiment, which a new training would rename, or no folder."""
    above = next(folder for folder in root.parents if os.path.exists(folder))  # noqa: PTH110
    if not above.is_dir() or os.path.isfile(root):  # noqa: PTH113
        return True
    is_there = os.path.isdir(root)  # noqa: PTH112
    return is_there and not (root / "training_states").is_dir() and any(root.iterdir())


def _bases() -> list[Path]:
    """The folders that relative paths begin at, and below which folders may be written; each once."""
    return list(dict.fromkeys([Path.cwd(), *([CHECKOUT] if CHECKOUT else [])]))
