"""Measure a network on test sets: ``mambair test -opt FILE`` and ``python mambair/test.py -opt FILE``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # as a script, this file's folder is the first import path; its modules must not shadow others (load, options, ...)
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != HERE]
    sys.path.insert(0, str(HERE.parent))

from mambair.commands.arguments import add_import, command_parser, import_own_code
from mambair.system.exit_codes import DONE, SOME_FAILED, USAGE_ERROR, ends_in_order

if TYPE_CHECKING:
    from torch import Tensor

    from mambair.evaluation.score_cache import ScoreJournal
    from mambair.evaluation.set_tables import Report, SetResult

EXAMPLES = """
mambair test -opt options/test_SR_x4.yml
mambair test -opt options/test/test_MambaIR_lightSR_x2.yml --force_yml val:save_img=false
"""
DEFAULT_OVERLAP = 32

logger = logging.getLogger("mambair.test")


def _parser(prog: str) -> argparse.ArgumentParser:
    """The command line, with BasicSR's names of options."""
    what = "Measure a network on the test sets of an option file; tables go to the screen and to results/NAME."
    parser = command_parser(prog, what, EXAMPLES)
    parser.add_argument("-opt", "--opt", required=True, type=Path, metavar="FILE", help="option file (YAML)")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="change values of the option file, e.g. val:save_img=false; values are YAML",
    )
    add_import(parser.add_argument)
    return parser


@ends_in_order("what is measured stays; the same command goes on with the rest")
def main(argv: Sequence[str] | None = None) -> int:
    """Test.

    Args:
        argv: without the program's name; None takes the command line of the script ``test.py``.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong arguments leave through argparse's SystemExit(2).
    """
    parser = _parser("test.py" if argv is None else "mambair test")
    arguments = parser.parse_args(argv)
    # torch and everything above it only now: --help answers at once
    import_own_code(parser, arguments)
    from mambair.options import OptionsError, load_options
    from mambair.registry import basicsr_installed, connect_basicsr
    from mambair.system.process_memory import keep_freed_memory

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if basicsr_installed():
        try:
            connect_basicsr()
        except ImportError as error:
            logger.warning("basicsr is installed but cannot be imported (%s); going on without it", error)
    try:
        opt = load_options(arguments.opt, is_train=False, overrides=arguments.force_yml)
    except OptionsError as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    keep_freed_memory()
    try:
        report, failed = run(opt)
    except (ValueError, OSError) as error:
        print(f"{arguments.opt}: {error}", file=sys.stderr)
        return USAGE_ERROR
    show(report, Path(opt["path"]["results_root"]))
    for name, reason in failed.items():
        print(f"{name} was not measured: {reason}", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def run(opt: dict[str, Any]) -> tuple[Report, dict[str, str]]:
    """Measure every test set of checked options; returns the report, and why the sets that failed did.

    A set that cannot be read or measured does not keep the others from being done.

    Raises:
        ValueError, OSError: the network cannot be built, or its weights do not fit or cannot be read.
    """
    from mambair.evaluation.set_tables import Report

    restore, conditions = build_restoration(opt)
    results: list[SetResult] = []
    failed: dict[str, str] = {}
    for label, dataset_opt in opt["datasets"].items():
        if not label.startswith("test"):
            continue
        name = dataset_opt["name"]
        try:
            results.append(measure(restore, opt, dataset_opt))
        except (ValueError, OSError) as error:
            failed[name] = str(error)
    return Report(opt["name"], results, conditions), failed


def build_restoration(opt: dict[str, Any]) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    """The function [1, C, h, w] to [1, C, H, W] that is measured, and the conditions to state beside its numbers.

    With ``network_g`` the model type of the file builds it and loads ``path.pretrain_network_g``; without, the weights
    tell which network they belong to. ``val.tile`` and ``val.overlap`` are pixels of the input; 0 is whole images.
    """
    import torch

    from mambair import __version__
    from mambair.inference.tiling import tiled_forward

    net = _model_restoration(opt) if opt.get("network_g") else _network_of_weights(opt)
    weights = opt["path"].get("pretrain_network_g")
    if weights is None:
        logger.warning("path.pretrain_network_g is empty: an untrained network is measured")
    tile, overlap = opt["val"].get("tile") or 0, opt["val"].get("overlap", DEFAULT_OVERLAP)
    conditions = {
        "network": opt["network_g"]["type"] if opt.get("network_g") else "as the weights say",
        "weights": Path(weights).name if weights else "none (untrained)",
        "scale": str(opt["scale"]),
        "tiles": f"{tile} input pixels, overlap {overlap}" if tile else "none (whole images)",
        "made with": f"mambair {__version__}, torch {torch.__version__}",
    }

    def restore(lq: Tensor) -> Tensor:
        return tiled_forward(net, lq, scale=opt["scale"], tile=tile, overlap=overlap) if tile else net(lq)

    return restore, conditions


def _model_restoration(opt: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Through the protocol every model type of ours and of BasicSR speaks."""
    from mambair.registry import MODEL_REGISTRY

    alone = {"dist": False, "rank": 0, "world_size": 1}
    model = MODEL_REGISTRY.get(opt["model_type"])({**alone, **opt})

    def restore(lq: Tensor) -> Tensor:
        model.feed_data({"lq": lq})
        model.test()
        return model.get_current_visuals()["result"]

    return restore


def _network_of_weights(opt: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    import torch

    import mambair

    weights = opt["path"].get("pretrain_network_g")
    if weights is None:
        raise ValueError("nothing to test: give network_g, or path.pretrain_network_g to take the network from")
    net = mambair.load(weights, param_key=opt["path"].get("param_key_g"))
    if net.upscale != opt["scale"]:
        raise ValueError(f"scale: the network of {weights} enlarges by {net.upscale}, but scale is {opt['scale']}")
    device = torch.device("cuda" if opt["num_gpu"] and torch.cuda.is_available() else "cpu")
    net.to(device)
    return lambda lq: net(lq.to(device))


def measure(restore: Callable[[Tensor], Tensor], opt: dict[str, Any], dataset_opt: dict[str, Any]) -> SetResult:
    """One test set: its metrics, and the restored images in ``visualization/<set>`` where ``val.save_img`` says so."""
    from mambair.data import build_dataset
    from mambair.evaluation.evaluate import evaluate
    from mambair.evaluation.set_tables import SetResult

    val = opt["val"]
    folder = Path(opt["path"]["visualization"]) / dataset_opt["name"] if val.get("save_img") else None
    evaluation = evaluate(
        restore,
        build_dataset(dataset_opt),
        val.get("metrics") or {},
        save_folder=folder,
        suffix=val.get("suffix") or opt["name"],
        memory=_memory(opt),
    )
    return SetResult(evaluation, set_conditions(dataset_opt))


def _memory(opt: dict[str, Any]) -> ScoreJournal | None:
    """What an earlier run with the same weights and settings measured; none for random weights."""
    from mambair import __version__
    from mambair.evaluation.score_cache import ScoreJournal

    weights = opt["path"].get("pretrain_network_g")
    if weights is None:
        return None
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    val = {key: value for key, value in opt["val"].items() if key not in ("save_img", "suffix")}
    settings = [__version__, digest, opt.get("network_g"), opt.get("model_type"), opt["path"].get("param_key_g"), val]
    return ScoreJournal(Path(opt["path"]["results_root"], "journal.jsonl"), [str(each) for each in settings])


def set_conditions(dataset_opt: dict[str, Any]) -> dict[str, str]:
    """How a data set's inputs come to be, as far as its options say."""
    conditions = {"type": dataset_opt["type"]}
    for key in ("sigma", "noise_seed", "color"):
        value = dataset_opt.get(key)
        if value is not None:
            conditions[key] = f"{value:g}" if isinstance(value, float) else str(value)
    return conditions


def show(report: Report, folder: Path) -> None:
    """Print the tables and write them as Markdown, CSV and JSON."""
    from mambair.evaluation.set_tables import as_text, write_report

    if not report.results:
        return
    print(as_text(report), end="")
    files = write_report(report, folder)
    print(f"\nwritten to {folder}: {', '.join(path.name for path in files)}")


if __name__ == "__main__":
    sys.exit(main())
