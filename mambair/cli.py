"""The installed command ``mambair``: a table of sub-commands, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import mambair


class Command(NamedTuple):
    """A sub-command: what it does, and the module whose ``main(arguments) -> exit code`` does it."""

    summary: str
    module: str


COMMANDS: dict[str, Command] = {
    "restore": Command("enlarge or clean images and folders of images", "mambair.commands.restore"),
    "benchmark": Command("the papers' tables, measured on their test sets", "mambair.commands.benchmark"),
    "profile": Command("parameters, multiplications, time and memory of a network", "mambair.commands.profile"),
}
USAGE_FAULT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command that the first argument names.

    Args:
        arguments: without the program's name; default: the command line's.

    Returns:
        The exit code: 0 all done, 1 some work failed, 2 usage.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE_FAULT
    if arguments[0] == "--version":
        print(f"mambair {mambair.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"{usage()}\nmambair: there is no command {name!r}", file=sys.stderr)
        return USAGE_FAULT
    return importlib.import_module(COMMANDS[name].module).main(rest)


def usage() -> str:
    """The text of ``mambair --help``."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines = ["usage: mambair COMMAND ...", "", "commands:", *rows, "", "mambair COMMAND --help tells the rest."]
    return "\n".join(lines)
