"""Option files that come with the package: recipes, found by name."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

OPTION_FILE_HELP = "option file (YAML), or the name of a recipe that comes with the package, e.g. train_SR_x4"
_PACKAGE = Path(__file__).resolve().parents[1]


def recipe_folder() -> Path:
    """The folder of the recipes: inside an installed package, else ``options`` of the checkout."""
    installed = _PACKAGE / "_recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "options"


def recipes() -> dict[str, Path]:
    """Each recipe's path, by its name without ``.yml``."""
    return {path.stem: path for path in sorted(recipe_folder().rglob("*.yml"))}


def option_file(given: str) -> Path:
    """The path of an option file, for argparse.

    Args:
        given: a path, or the name of a recipe with or without ``.yml``. A file of that name in the working folder
            comes first; a name with ``.yml`` of no recipe stays a path, which the reader of option files refuses.

    Raises:
        ArgumentTypeError: there is no such file, and no such recipe; the message names the nearest recipes.
    """
    path = Path(given)
    name = given.removesuffix(".yml")
    if path.exists() or path.is_symlink() or path.name != given or not name:
        return path
    known = recipes()
    if name in known:
        return known[name]
    if path.suffix in (".yml", ".yaml"):
        return path
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; the nearest recipes: {', '.join(near)}" if near else ""
    raise argparse.ArgumentTypeError(f"{given}: no such file, and no recipe of that name in {recipe_folder()}{hint}")
