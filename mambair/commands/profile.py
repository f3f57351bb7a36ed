"""``mambair profile``: parameters, multiplications, time and memory of a network."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.arguments import add_import, add_network_group, at_least, command_parser, import_own_code
from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import parse_json
from mambair.system.console import note, say
from mambair.system.devices import choose_device
from mambair.system.exit_codes import DONE, SOME_FAILED, ends_in_order

if TYPE_CHECKING:
    from mambair.profiling.report import Profile

EXAMPLES = """
mambair profile MambaIR-light-x2
mambair profile mine.safetensors --size 1920x1080 --latency-size 480x270 --json profile.json
mambair profile options/test/test_MambaIR_SR_x4.yml --depth 2 --no-latency
"""
DEFAULT_SIZE = "1280x720"
LARGEST_SIDE = 1 << 16


@ends_in_order("give the same command again")
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the costs of one network; ``arguments`` default to the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`; 1 if the forward pass could not be measured.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    kwargs = _kwargs(parser, options.kwargs)
    import_own_code(parser, options)
    # torch, which takes seconds to import, comes in only here: --help and wrong usage answer at once
    from mambair.profiling.report import as_json, as_text, profile
    from mambair.profiling.target import find_target

    try:
        device = choose_device(options.device)
        target = find_target(options.network, kwargs, offline=options.offline or None)
        found = profile(target, options.size, of_output=options.size_of == "output", depth=options.depth)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    failure = None
    if not options.no_latency:
        found, failure = _with_forward_pass(found, options, str(device))
    say(as_text(found).rstrip("\n"))
    if options.json:
        with atomic_path(options.json) as temporary:
            temporary.write_text(as_json(found), encoding="utf-8", newline="\n")
    if failure:
        note(f"latency and memory were not measured: {failure}")
    return SOME_FAILED if failure else DONE


def _with_forward_pass(found: Profile, options: argparse.Namespace, device: str) -> tuple[Profile, str | None]:
    from mambair.profiling.forward_pass import ForwardPassError, Settings, measure_forward_pass
    from mambair.profiling.report import input_size

    size = found.input_size
    if options.latency_size:
        of_output = options.size_of == "output"
        size = input_size(options.latency_size, found.upscale) if of_output else options.latency_size
    width, height = size
    settings = Settings((1, found.channels, height, width), options.dtype, device, options.threads, options.repeats)
    note(f"timing {options.repeats} + 2 passes on an input of {width}x{height} ...")
    try:
        forward = measure_forward_pass(found.target, settings)
    except ForwardPassError as error:
        return found, str(error)
    return replace(found, settings=settings, forward=forward), None


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "mambair profile",
        "Show what a network costs: parameters, multiply-accumulates by module with the scans, time and memory. "
        "Multiplications are counted without computing anything, so --size may be large; --latency-size makes the "
        "timed pass smaller.",
        EXAMPLES,
    )
    add = parser.add_argument
    add(
        "network",
        metavar="NETWORK",
        help="a file of weights or its address, an option file, a published network (MambaIR-light-x2), or a "
        "registered class",
    )
    add("--kwargs", metavar="JSON", help='arguments of a registered class: \'{"embed_dim": 60, "upscale": 4}\'')
    add("--size", type=_size, default=DEFAULT_SIZE, metavar="WxH", help=f"default {DEFAULT_SIZE}")
    add("--size-of", choices=("output", "input"), default="output", help="what --size is of (default: the output)")
    add("--depth", type=int, default=1, metavar="N", help="how deep the table of modules goes (default 1)")
    add("--json", type=Path, metavar="FILE", help="write all figures there, too")
    add("--no-latency", action="store_true", help="count only, run nothing")
    add("--latency-size", type=_size, metavar="WxH", help="time and memory at this size (default: --size)")
    add("--repeats", type=at_least(1), default=3, metavar="N", help="timed passes after the warm-up (default 3)")
    add_import(add)
    add_to_network = add_network_group(parser)
    add_to_network("--threads", type=at_least(1), metavar="N", help="threads of the CPU (default: torch's choice)")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(0 < side <= LARGEST_SIDE for side in size):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, such as {DEFAULT_SIZE}; got {text!r}")
    return size


def _kwargs(parser: argparse.ArgumentParser, text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    try:
        return parse_json(text)
    except ValueError as error:
        parser.error(f"--kwargs must be a JSON object of arguments ({error}), got {text[:80]!r}")
