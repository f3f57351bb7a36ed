"""Measure a network on test sets: ``mambair test -opt FILE`` and ``python mambair/test.py -opt FILE``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # as a script, this file's folder is the first import path; its modules must not shadow others (load, options, ...)
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != HERE]
    sys.path.insert(0, str(HERE.parent))

from mambair.commands.arguments import (
    add_device,
    add_import,
    add_offline,
    command_parser,
    device_in_options,
    import_own_code,
)
from mambair.commands.recipes import OPTION_FILE_HELP, option_file
from mambair.system.console import log_to_stderr, note, say
from mambair.system.devices import DTYPES
from mambair.system.exit_codes import DONE, SOME_FAILED, USAGE_ERROR, ends_in_order

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mambair.evaluation.candidates import Candidate
    from mambair.evaluation.results import Run, SetResult
    from mambair.evaluation.score_cache import ScoreCache

EXAMPLES = """
mambair test -opt options/test_SR_x4.yml
mambair test -opt options/test/test_MambaIR_lightSR_x2.yml --force_yml val:save_img=false
"""

logger = logging.getLogger("mambair.test")


def _parser(prog: str) -> argparse.ArgumentParser:
    """The command line, with BasicSR's names of options."""
    what = "Measure a network on the test sets of an option file; tables go to the screen and to results/NAME."
    parser = command_parser(prog, what, EXAMPLES)
    parser.add_argument("-opt", "--opt", required=True, type=option_file, metavar="FILE", help=OPTION_FILE_HELP)
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="change values of the option file, e.g. val:save_img=false; values are YAML",
    )
    add_device(parser.add_argument)
    parser.add_argument(
        "--dtype", choices=DTYPES, default="fp32", help="mixed precision; scans and metrics stay in fp32 (default fp32)"
    )
    parser.add_argument("--tile", type=int, metavar="N", help="largest side of a tile, in place of val.tile; 0: whole")
    add_offline(parser.add_argument)
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
    from mambair.options import OptionsError, SettingError, load_options, with_place
    from mambair.registry import MODEL_REGISTRY, basicsr_installed, connect_basicsr
    from mambair.system.process_memory import bound_kernel_caches, keep_freed_memory

    if basicsr_installed():
        try:
            connect_basicsr()
        except ImportError as error:
            note(f"basicsr is installed but cannot be imported ({error}); going on without it")
    log_to_stderr(logging.INFO)
    tile = [] if arguments.tile is None else [f"val:tile={arguments.tile}"]
    arguments.force_yml = [*arguments.force_yml, *device_in_options(parser, arguments.device), *tile]
    try:
        opt = load_options(arguments.opt, is_train=False, overrides=arguments.force_yml)
    except OptionsError as error:
        note(str(error))
        return USAGE_ERROR
    if not MODEL_REGISTRY.is_ours(opt["model_type"]):
        connect_basicsr()  # says which names mean basicsr's parts in its own models
    bound_kernel_caches()
    keep_freed_memory()
    try:
        measured = run(opt, dtype=DTYPES[arguments.dtype], offline=arguments.offline)
    except SettingError as error:
        note(with_place(error, arguments.opt, arguments.force_yml))
        return USAGE_ERROR
    except (ValueError, OSError) as error:
        note(f"{arguments.opt}: {error}")
        return USAGE_ERROR
    show(measured)
    for reason in [*measured.missing.values(), *measured.failed()]:
        note(f"not measured: {reason}")
    return DONE if measured.is_complete else SOME_FAILED


def run(opt: dict[str, Any], *, dtype: str = "float32", offline: bool = False) -> Run:
    """Measure every test set of checked options, each beside its unrestored input.

    A set or an image that cannot be read or measured does not keep the others from being done.

    Args:
        dtype: float32, or bfloat16 / float16 for autocast.
        offline: take weights that are given by name from the cache only.

    Raises:
        SettingError: the images of a set do not suit the network or the metrics; nothing was measured.
        ValueError, OSError: the network cannot be built, or its weights do not fit or cannot be read.
    """
    from mambair.data import build_dataset
    from mambair.evaluation.candidates import input_of
    from mambair.evaluation.results import Run
    from mambair.evaluation.score_cache import NAME, ScoreCache
    from mambair.evaluation.trial import MEASURED, channels_taken, try_set
    from mambair.options.errors import made_of
    from mambair.system.download import download_bar
    from mambair.weights.fetch import locate

    opt = {**opt, "path": dict(opt["path"])}
    if opt["path"].get("pretrain_network_g"):
        with made_of("path", "pretrain_network_g"):
            weights = locate(opt["path"]["pretrain_network_g"], offline=offline or None, progress=download_bar)
        opt["path"]["pretrain_network_g"] = str(weights)
    candidate = build_candidate(opt, dtype)
    tests = {label: options for label, options in opt["datasets"].items() if label.startswith("test")}
    baselines = {options["name"]: input_of(options["type"], opt["scale"]) for options in tests.values()}
    by_name = {each.name: each for each in baselines.values()}
    folder = Path(opt["path"]["results_root"])
    measured = Run(opt["name"], [*by_name.values(), candidate], folder, conditions(opt, dtype))
    datasets: dict[str, Any] = {}
    for label, options in tests.items():
        try:
            datasets[label] = build_dataset(options)
        except (ValueError, OSError) as error:
            measured.missing[options["name"]] = f"{options['name']}: {error}"
        else:
            try_set(label, datasets[label], opt, channels_taken(opt, candidate.in_chans), MEASURED)
    cache = ScoreCache(folder / NAME)
    for label, dataset in datasets.items():
        baseline = baselines[tests[label]["name"]]
        measured.sets.append(measure_set(candidate, baseline, opt, dataset, tests[label], cache))
    return measured


def measure_set(
    candidate: Candidate,
    baseline: Candidate,
    opt: dict[str, Any],
    dataset: Any,
    dataset_opt: dict[str, Any],
    cache: ScoreCache,
) -> SetResult:
    """One test set: its metrics, and the restored images in ``visualization/<set>`` where ``val.save_img`` says so."""
    from mambair.evaluation.evaluate import Storage, measure
    from mambair.evaluation.results import SetResult, metrics_for

    val, name, folder = opt["val"], dataset_opt["name"], Path(opt["path"]["results_root"])
    pictures = os.path.relpath(opt["path"]["visualization"], folder)

    def picture_name(restored_by: str, image: str) -> str | None:
        is_saved = val.get("save_img") and restored_by == candidate.name
        return f"{pictures}/{name}/{image}_{val.get('suffix') or opt['name']}.png" if is_saved else None

    metrics = metrics_for(dataset, dataset_opt.get("metrics") or val.get("metrics") or {})
    result = SetResult(name, dataset, metrics, opt["scale"], describe_inputs(dataset_opt))
    candidates = [baseline, candidate] if metrics else [candidate]
    return measure(result, candidates, storage=Storage(folder, picture_name, cache), progress=name)


def build_candidate(opt: dict[str, Any], dtype: str = "float32") -> Candidate:
    """What is measured, under the name of the experiment.

    With ``network_g`` the model type of the file builds it and loads ``path.pretrain_network_g``; without, the weights
    tell which network they belong to. In tiles of ``val.tile`` input pixels, if that is set.
    """
    import torch

    from mambair.evaluation.candidates import FunctionCandidate, NetworkCandidate, input_of

    weights, val = opt["path"].get("pretrain_network_g"), opt["val"]
    baselines = [input_of(options["type"], opt["scale"]).name for options in opt["datasets"].values()]
    name = f"{opt['name']} (network)" if opt["name"] in baselines else opt["name"]
    if opt.get("network_g"):
        restore, net = _model_restoration(opt, dtype)
        if weights is None:
            logger.warning("path.pretrain_network_g is empty: an untrained network is measured")
        return FunctionCandidate(name, restore, identity=_identity(opt, dtype), net=net)
    if weights is None:
        raise ValueError("nothing to test: give network_g, or path.pretrain_network_g to take the network from")
    candidate = NetworkCandidate(
        name,
        Path(weights),
        param_key=opt["path"].get("param_key_g"),
        tile=val.get("tile") or 0,
        overlap=val.get("overlap"),
        device=None if opt["num_gpu"] else "cpu",
        dtype=getattr(torch, dtype),
    )
    if candidate.upscale != opt["scale"]:
        raise ValueError(
            f"scale: the network of {weights} enlarges by {candidate.upscale}, but scale is {opt['scale']}"
        )
    return candidate


def _model_restoration(opt: dict[str, Any], dtype: str) -> tuple[Callable[[Tensor], Tensor], nn.Module | None]:
    """Through the protocol every model type of ours and of BasicSR speaks; and the network inside."""
    import torch

    from mambair.inference.tiling import default_overlap, tiled_forward
    from mambair.models import RestorationModel, build_model

    alone = {"dist": False, "rank": 0, "world_size": 1}
    model = build_model({**alone, **opt})
    net = getattr(model, "net_g", None)

    def restore(lq: Tensor) -> Tensor:
        model.feed_data({"lq": lq})
        with torch.autocast(model.device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            model.test()
        return model.get_current_visuals()["result"].float()

    tile, overlap = opt["val"].get("tile") or 0, opt["val"].get("overlap")
    if isinstance(model, RestorationModel) or not tile:
        return restore, net  # our model cuts its tiles itself, basicsr's have none
    grid = {
        "scale": opt["scale"],
        "tile": tile,
        "overlap": default_overlap(tile) if overlap is None else overlap,
        "multiple": getattr(net, "tile_multiple", 1),
    }
    return partial(tiled_forward, restore, **grid), net


def _identity(opt: dict[str, Any], dtype: str) -> str | None:
    """All that scores depend on beside the images and the metrics; None for random weights."""
    from mambair import __version__

    weights = opt["path"].get("pretrain_network_g")
    if weights is None:
        return None
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    settings = [opt.get("network_g"), opt.get("model_type"), opt["path"].get("param_key_g")]
    tiles = [opt["val"].get("tile"), opt["val"].get("overlap")]
    return str([__version__, digest, *settings, *tiles, dtype])


def conditions(opt: dict[str, Any], dtype: str = "float32") -> dict[str, str]:
    """What holds for all sets and stands beside the figures."""
    import torch

    from mambair import __version__
    from mambair.inference.tiling import default_overlap

    weights, tile, overlap = opt["path"].get("pretrain_network_g"), opt["val"].get("tile"), opt["val"].get("overlap")
    overlap = default_overlap(tile or 0) if overlap is None else overlap
    return {
        "network": opt["network_g"]["type"] if opt.get("network_g") else "as the weights say",
        "weights": Path(weights).name if weights else "none (untrained)",
        "scale": str(opt["scale"]),
        "tiles": f"{tile} input pixels, overlap {overlap}" if tile else "none (whole images)",
        "precision": dtype,
        "made with": f"mambair {__version__}, torch {torch.__version__}",
    }


def describe_inputs(dataset_opt: dict[str, Any]) -> str:
    """How a data set's inputs come to be, as far as its options say."""
    words = [dataset_opt["type"]]
    for key in ("sigma", "noise_seed", "quality", "color"):
        value = dataset_opt.get(key)
        if value is not None:
            words.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(words)


def show(measured: Run) -> None:
    """Print the tables and write them and the HTML report; nothing is written where nothing was measured."""
    from mambair.evaluation.html_report import write_html
    from mambair.evaluation.tables import as_text, write_tables

    if not measured.levels():
        return
    say(as_text(measured, images=True).rstrip("\n"))
    files = [*write_tables(measured, "metrics"), write_html(measured)]
    say(f"\nwritten to {measured.folder}: {', '.join(path.name for path in files)}")


if __name__ == "__main__":
    sys.exit(main())
