"""``mambair weights``: list published networks, show where their weights are, and fetch them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from mambair.commands.arguments import add_quiet, command_parser, path_name
from mambair.system.console import log_to_stderr, printable
from mambair.system.exit_codes import DONE, SOME_FAILED, USAGE_ERROR, ends_in_order

EXAMPLES = """
mambair weights list "MambaIRv2-*-x4"
mambair weights show MambaIRv2-light-x4
mambair weights fetch MambaIRv2-light-x4 hub:owner/repository/file.safetensors
mambair weights where MambaIRv2-light-x4
mambair weights mix pixel.pth gan.pth --alpha 0.3 -o between.safetensors
"""
NOTES = """Fetched files are kept in MAMBAIR_HOME/weights, or else in the cache folder of the user. HF_ENDPOINT names a
mirror of the hub, https_proxy a proxy; MAMBAIR_OFFLINE=1 forbids the network. The addresses are those of the authors'
pages, and this project could not try them. Weights stay under their authors' licences.
"""


@ends_in_order("what is fetched stays; the same command goes on with the rest")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``list``, ``show``, ``fetch``, ``where`` or ``mix``; ``arguments`` default to the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr(logging.INFO)
    if options.work == "list":
        return _list(options.pattern)
    if options.work == "mix":
        return _mix(options)
    work = {"show": _show, "fetch": _fetch, "where": _where}[options.work]
    codes = [work(name, options) for name in options.names]
    return max(codes)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("mambair weights", "Weights of published networks by name.", EXAMPLES, NOTES)
    works = parser.add_subparsers(dest="work", required=True, metavar="COMMAND")
    listing = works.add_parser("list", help="list the networks of which an address of weights is known")
    listing.add_argument("pattern", nargs="?", default="*", help="* stands for any characters (default: all)")
    summaries = {
        "show": "show addresses, size, checksum, licence and citation",
        "fetch": "fetch weights into the cache",
        "where": "print the file in the cache; exit code 1 if it is not there",
    }
    for name, summary in summaries.items():
        work = works.add_parser(name, help=summary)
        work.add_argument(
            "names", nargs="+", metavar="NAME", help="a network, hub:OWNER/REPOSITORY/FILE or https://..."
        )
        if name == "fetch":
            add_quiet(work.add_argument)
    mixing = works.add_parser("mix", help="write the weighted mean of two files of weights of one network")
    for name in ("first", "second"):
        mixing.add_argument(name, metavar=name.upper(), help="a .safetensors or .pth file, or a name as above")
    mixing.add_argument(
        "--alpha",
        type=_share,
        default=0.5,
        metavar="A",
        help="share of SECOND, 0 to 1; FIRST has the rest (default 0.5)",
    )
    mixing.add_argument("-o", "--output", required=True, type=path_name, metavar="FILE", help=".safetensors or .pth")
    mixing.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return share


def _mix(options: argparse.Namespace) -> int:
    from mambair.weights.checkpoint import CheckpointError, CheckpointWriteError, read_checkpoint, write_checkpoint
    from mambair.weights.fetch import FetchError, locate
    from mambair.weights.mixing import mix

    if options.output.exists() and not options.overwrite:
        print(f"{printable(str(options.output))} exists; --overwrite replaces it", file=sys.stderr)
        return USAGE_ERROR
    try:
        checkpoints = [read_checkpoint(locate(name)) for name in (options.first, options.second)]
        mixed = mix(checkpoints, (1 - options.alpha, options.alpha))
        write_checkpoint(options.output, mixed, checkpoints[0].metadata)
    except (CheckpointError, FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    except CheckpointWriteError as error:
        print(printable(str(error)), file=sys.stderr)
        return SOME_FAILED
    print(printable(str(options.output)))
    return DONE


def _list(pattern: str) -> int:
    from mambair.weights.addresses import published
    from mambair.weights.catalogue import list_networks
    from mambair.weights.fetch import FetchError, cached, size_in_words

    found = list(dict.fromkeys(filter(None, map(published, list_networks(pattern)))))
    for remote in found:
        try:
            state = "" if cached(remote) is None else "  in the cache"
        except FetchError as error:
            state = f"  {printable(str(error))}"
        print(f"{remote.name:30} {size_in_words(remote):>15}  {remote.licence}{state}")
    if not found:
        print(f"no address of weights is known for a network like {printable(pattern)}", file=sys.stderr)
    return DONE if found else SOME_FAILED


def _show(name: str, options: argparse.Namespace) -> int:
    from mambair.system.web_connections import shown_address
    from mambair.weights.fetch import FetchError, cache_folder, cached, resolve, size_in_words

    try:
        remote = resolve(name)
        path = cached(remote)
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    rows = {
        "name": remote.name,
        **{f"address {number}": shown_address(url) for number, url in enumerate(remote.urls, 1)},
        "page": remote.page,
        "size": size_in_words(remote),
        "sha256": remote.sha256 or "not stated; the first download is recorded",
        "licence": remote.licence or "see the page",
        "citation": remote.citation or "see the page",
        "file": str(path) if path else f"not in the cache ({cache_folder()})",
    }
    for label, value in rows.items():
        print(f"{label:10} {printable(value)}")
    return DONE


def _fetch(name: str, options: argparse.Namespace) -> int:
    from mambair.system.download import download_bar
    from mambair.weights.fetch import FetchError, locate, silent

    try:
        path = locate(name, progress=silent if options.quiet else download_bar)
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return SOME_FAILED
    print(printable(str(path)))
    return DONE


def _where(name: str, options: argparse.Namespace) -> int:
    from mambair.weights.fetch import FetchError, cached, resolve

    try:
        remote = resolve(name)
        path = cached(remote)
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    if path is None:
        print(f"{printable(remote.name)} is not in the cache", file=sys.stderr)
        return SOME_FAILED
    print(printable(str(path)))
    return DONE
