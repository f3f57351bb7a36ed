"""The installed command ``mambair``: a table of sub-commands, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import mambair
from mambair.system.exit_codes import DONE, USAGE_ERROR, ends_in_order, leave
from mambair.system.suggestions import did_you_mean


class Command(NamedTuple):
    """A sub-command: what it does, and the module whose ``main(arguments) -> exit code`` does it."""

    summary: str
    module: str


COMMANDS: dict[str, Command] = {
    "train": Command("train a network from an option file", "mambair.train"),
    "test": Command("measure a network on the test sets of an option file", "mambair.test"),
    "restore": Command("enlarge or clean images and folders of images", "mambair.commands.restore"),
    "benchmark": Command("measure the papers' tables on their test sets", "mambair.commands.benchmark"),
    "profile": Command("show parameters, multiplications, time and memory of a network", "mambair.commands.profile"),
    "weights": Command("list and fetch weights of published networks", "mambair.commands.weights"),
    "doctor": Command("show what mambair finds on this machine, for an issue", "mambair.commands.doctor"),
    "data": Command("download, prepare and check data sets", "mambair.commands.data"),
}


@ends_in_order()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command that the first argument names.

    Args:
        arguments: without the program's name; default: the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return DONE if arguments else USAGE_ERROR
    if arguments[0] == "--version":
        print(f"mambair {mambair.__version__}")
        return DONE
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"{usage()}\nmambair: no command {name!r}{did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return USAGE_ERROR
    return importlib.import_module(COMMANDS[name].module).main(rest)


def run() -> NoReturn:
    """The installed command."""
    leave(main())


def usage() -> str:
    """The text of ``mambair --help``."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    lines = ["usage: mambair COMMAND ...", "", "commands:", *rows, "", "Run 'mambair COMMAND --help' for details."]
    return "\n".join(lines)
