"""``mambair weights``: list published networks, show where their weights are, and fetch them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mambair.commands.arguments import add_quiet, command_parser
from mambair.system.console import log_to_stderr, printable
from mambair.system.exit_codes import DONE, SOME_FAILED, USAGE_ERROR, ends_in_order

if TYPE_CHECKING:
    from mambair.weights.addresses import RemoteWeights

EXAMPLES = """
mambair weights list "MambaIRv2-*-x4"
mambair weights show MambaIRv2-light-x4
mambair weights fetch MambaIRv2-light-x4 hub:owner/repository/file.safetensors
mambair weights where MambaIRv2-light-x4
"""
NOTES = """Fetched files are kept in MAMBAIR_HOME/weights, or else in the cache folder of the user. HF_ENDPOINT names a
mirror of the hub, https_proxy a proxy; MAMBAIR_OFFLINE=1 forbids the network. The addresses are those of the authors'
pages, and this project could not try them. Weights stay under their authors' licences.
"""


@ends_in_order("what is fetched stays; the same command goes on with the rest")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``list``, ``show``, ``fetch`` or ``where``; ``arguments`` default to the command line's.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong usage leaves through argparse's SystemExit(2).
    """
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr(logging.INFO)
    if options.work == "list":
        return _list(options.pattern)
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
    return parser


def _list(pattern: str) -> int:
    from mambair.weights.addresses import published
    from mambair.weights.catalogue import list_networks
    from mambair.weights.fetch import FetchError, cached

    found = [remote for remote in map(published, list_networks(pattern)) if remote is not None]
    for remote in found:
        try:
            state = "" if cached(remote) is None else "  in the cache"
        except FetchError as error:
            state = f"  {printable(str(error))}"
        print(f"{remote.name:26} {_size(remote):>9}  {remote.licence}{state}")
    if not found:
        print(f"no address of weights is known for a network like {printable(pattern)}", file=sys.stderr)
    return DONE if found else SOME_FAILED


def _show(name: str, options: argparse.Namespace) -> int:
    from mambair.weights.fetch import FetchError, cache_folder, cached, resolve

    try:
        remote = resolve(name)
        path = cached(remote)
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    rows = {
        "name": remote.name,
        **{f"address {number}": url for number, url in enumerate(remote.urls, 1)},
        "page": remote.page,
        "size": _size(remote),
        "sha256": remote.sha256 or "not stated; the first download is recorded",
        "licence": remote.licence or "see the page",
        "citation": remote.citation or "see the page",
        "file": str(path) if path else f"not in the cache ({cache_folder()})",
    }
    for label, value in rows.items():
        print(f"{label:10} {printable(value)}")
    return DONE


def _fetch(name: str, options: argparse.Namespace) -> int:
    from mambair.system.download import no_progress, progress_bar
    from mambair.weights.fetch import FetchError, locate

    try:
        path = locate(name, progress=(lambda file: no_progress) if options.quiet else progress_bar)
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return SOME_FAILED
    print(printable(str(path)))
    return DONE


def _where(name: str, options: argparse.Namespace) -> int:
    from mambair.weights.fetch import FetchError, cached, resolve

    try:
        path = cached(resolve(name))
    except (FetchError, OSError) as error:
        print(printable(str(error)), file=sys.stderr)
        return USAGE_ERROR
    if path is None:
        print(f"{printable(name)} is not in the cache", file=sys.stderr)
        return SOME_FAILED
    print(printable(str(path)))
    return DONE


def _size(remote: RemoteWeights) -> str:
    return f"{remote.size / 1e6:.1f} MB" if remote.size else "-"
