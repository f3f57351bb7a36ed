"""Arguments that several commands share, each in one place; importing this module imports no torch."""

from __future__ import annotations

import argparse
import logging
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mambair.system.console import log_to_stderr, note, printable_lines
from mambair.system.devices import AUTO, DTYPES
from mambair.system.exit_codes import EXPLANATION

AddArgument = Callable[..., argparse.Action]
WIDTH = 100  # of descriptions


class _Parser(argparse.ArgumentParser):
    """Its errors are printable, whatever was given."""

    def error(self, message: str) -> NoReturn:
        super().error(printable_lines(message))


def command_parser(prog: str | None, description: str, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """Make the parser of a command, whose help ends with examples, notes and the exit codes.

    Args:
        prog: ``mambair COMMAND``; None for the name of the script that runs.
        description: what the command does.
        examples: command lines, one a line.
        notes: shown between the examples and the exit codes.
    """
    lines = "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines())
    return _Parser(
        prog=prog,
        description=textwrap.fill(description, WIDTH, break_on_hyphens=False),
        epilog="\n".join(filter(None, [f"examples:\n{lines}", notes, EXPLANATION])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_network_group(parser: argparse.ArgumentParser, *, default_tile: str | None = None) -> AddArgument:
    """Add the group of arguments that say how a network runs, and return what adds more to it.

    Args:
        parser: of a command.
        default_tile: what happens without ``--tile``; None for a command that does not cut images into tiles.
    """
    add = parser.add_argument_group("how the network runs").add_argument
    add("--device", default=AUTO, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps, ... (default auto: cuda or cpu)")
    add(
        "--dtype",
        type=_dtype,
        default="fp32",
        metavar=f"{{{','.join(DTYPES)}}}",
        help="bf16 and fp16 are faster on GPUs; scans stay in fp32 (default fp32)",
    )
    add("--offline", action="store_true", help="do not use the network to fetch weights that are given by name")
    if default_tile is not None:
        add("--tile", type=int, metavar="N", help=f"largest side of a tile, input pixels (default: {default_tile})")
        add("--overlap", type=int, metavar="N", help="smallest overlap of tiles, input pixels (default 32)")
        add("--self-ensemble", action="store_true", help="mean over 8 flipped and turned views: 8 times the work")
    return add


def add_quiet(add: AddArgument) -> None:
    """Add ``--quiet``."""
    add("--quiet", action="store_true", help="show no progress bar")


def add_import(add: AddArgument) -> None:
    """Add ``--import``, see `import_own_code`."""
    add(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="import your own code first: a .py file, or a module on sys.path; may be repeated (docs/own_code.md)",
    )


def import_own_code(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Import what ``--import`` names, and print a line for each; a module that cannot be imported is a usage error."""
    if not options.modules:
        return
    from mambair.system.own_code import OwnCodeError, import_module  # imports torch

    for name in options.modules:
        try:
            note(import_module(name))
        except OwnCodeError as error:
            parser.error(f"--import {error}")


def located_weights(parser: argparse.ArgumentParser, text: str, *, offline: bool = False) -> Path:
    """Return the file that ``--weights`` means, fetched with a progress bar if need be; else a usage error."""
    if Path(text).is_file():
        return Path(text)
    from mambair.system.download import progress_bar
    from mambair.weights.fetch import FetchError, locate  # imports torch

    log_to_stderr(logging.INFO)
    try:
        return locate(text, offline=offline or None, progress=progress_bar)
    except (FetchError, OSError) as error:
        parser.error(f"--weights {error}")


def at_least(smallest: int) -> Callable[[str], int]:
    """Make the type of an argument that is an integer from ``smallest`` on."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < smallest:
            raise argparse.ArgumentTypeError(f"must be an integer from {smallest}, got {text!r}")
        return value

    return integer


def path_name(text: str) -> Path:
    """The type of an argument that names a file or a folder; an empty text would name the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty (. is the current folder)")
    return Path(text)


def pixel_count(text: str) -> int:
    """The type of an argument that is a number of pixels: 200000000, 2e8 or 200M; 0 is for no limit."""
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:].lower(), 1)
    try:
        count = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        count = math.nan
    if not 0 <= count < 2**63 or count != int(count):
        raise argparse.ArgumentTypeError(f"must be a number of pixels such as 200M or 1e9, or 0, got {text!r}")
    return int(count)


def _dtype(text: str) -> str:
    """The name of a torch dtype, of its short or its full name."""
    if text in DTYPES.values():
        return text
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(DTYPES)}, got {text!r}")
    return DTYPES[text]
