"""Arguments that several commands share, each in one place; importing this module imports no torch."""

from __future__ import annotations

import argparse
import logging
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mambair.system.console import log_to_stderr, note, printable_lines
from mambair.system.devices import AUTO, DTYPES, choose_device
from mambair.system.exit_codes import EXPLANATION, USAGE_ERROR
from mambair.system.suggestions import did_you_mean

AddArgument = Callable[..., argparse.Action]
WIDTH = 100  # of descriptions


class CommandParser(argparse.ArgumentParser):
    """A parser, also of sub-commands, whose errors are printable and name the nearest flag or choice."""

    def error(self, message: str) -> NoReturn:
        """Print where help is, and the message, and leave by SystemExit(2)."""
        if flag := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            message += did_you_mean(flag[1], re.findall(r"--[\w-]+", self.format_help()))
        elif choice := re.search(r"invalid choice: '(.+?)' \(choose from (.+)\)$", message):
            message += did_you_mean(choice[1], choice[2].replace("'", "").split(", "))
        if (name := message.partition("unrecognized arguments: ")[2]) and Path(name).exists():
            message += f"; a file whose name begins with a dash is written ./{name}"
        usage = f"usage: {self.prog} ... ('{self.prog} --help' shows all arguments)"
        self.exit(USAGE_ERROR, printable_lines(f"{usage}\n{self.prog}: error: {message}\n"))


def command_parser(prog: str | None, description: str, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """Make the parser of a command, whose help ends with examples, notes and the exit codes.

    Args:
        prog: ``mambair COMMAND``; None for the name of the script that runs.
        description: what the command does.
        examples: command lines, one a line.
        notes: shown between the examples and the exit codes.
    """
    lines = "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines())
    return CommandParser(
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
    add_device(add)
    add(
        "--dtype",
        type=_dtype,
        default="fp32",
        metavar=f"{{{','.join(DTYPES)}}}",
        help="bf16 and fp16 are faster on GPUs; scans stay in fp32 (default fp32)",
    )
    add_offline(add)
    if default_tile is not None:
        add("--tile", type=int, metavar="N", help=f"largest side of a tile, input pixels (default: {default_tile})")
        add("--overlap", type=int, metavar="N", help="smallest overlap of tiles, input pixels (default 32)")
        add("--self-ensemble", action="store_true", help="mean over 8 flipped and turned views: 8 times the work")
    return add


def add_offline(add: AddArgument) -> None:
    """Add ``--offline``."""
    add("--offline", action="store_true", help="do not use the network to fetch weights that are given by name")


def add_device(add: AddArgument) -> None:
    """Add ``--device``."""
    add("--device", default=AUTO, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps, ... (default auto: cuda or cpu)")


def device_in_options(parser: argparse.ArgumentParser, name: str) -> list[str]:
    """Return ``--device`` as a change of an option file, whose ``num_gpu`` holds with ``auto``; else a usage error."""
    if name == AUTO:
        return []
    try:
        device = choose_device(name)
    except ValueError as error:
        parser.error(f"--{error}")
    if device.type == "cpu":
        return ["num_gpu=0"]
    if device.type != "cuda":
        parser.error(f"--device {name}: option files run on cpu or cuda; 'mambair restore' also runs on others")
    import torch

    torch.cuda.set_device(device)
    return ["num_gpu=1"]


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
    from mambair.system.errors import RequestError
    from mambair.system.own_code import import_module  # imports torch

    for name in options.modules:
        try:
            note(import_module(name))
        except RequestError as error:
            parser.error(f"--import {error}")


def located_weights(parser: argparse.ArgumentParser, text: str, *, offline: bool, quiet: bool) -> Path:
    """Return the file that ``--weights`` means, fetched if need be (``quiet``: without a bar); else a usage error."""
    if Path(text).is_file():
        return Path(text)
    from mambair.system.download import download_bar
    from mambair.weights.fetch import FetchError, locate, silent  # imports torch

    log_to_stderr(logging.INFO)
    try:
        return locate(text, offline=offline or None, progress=silent if quiet else download_bar)
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
    if text == "-":
        raise argparse.ArgumentTypeError("- would be a standard stream, which is not used; name a file (./- is one)")
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
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(DTYPES)}, got {text!r}{did_you_mean(text, DTYPES)}"
        )
    return DTYPES[text]
