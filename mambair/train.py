"""Train a network from an option file: ``python mambair/train.py -opt options/train_SR_x4.yml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

USAGE_FAULT = 2


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, in BasicSR's words."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network as an option file says; N processes: torchrun --nproc_per_node=N mambair/train.py",
    )
    parser.add_argument("-opt", "--opt", required=True, type=Path, metavar="FILE", help="option file (YAML)")
    parser.add_argument(
        "--auto_resume", action="store_true", help="go on from this experiment's newest checkpoint, if there is one"
    )
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY:KEY=VALUE",
        help="change values of the option file, e.g. train:total_iter=20; values are YAML",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only open all data, try a step, a validation and a checkpoint, and report times and memory",
    )
    parser.add_argument(
        "--debug", action="store_true", help="name the run debug_<name>; report each step, save and validate every 8"
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="slurm: started by srun; pytorch is accepted from old scripts, as torchrun's environment says it all",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code: 0 done, 1 failed, 2 fault in the options, 143 or 130 ended by a signal."""
    arguments = parse_arguments(argv)
    # torch and everything above it only now: --help answers at once
    from mambair.registry import basicsr_installed, connect_basicsr

    if basicsr_installed():
        try:
            connect_basicsr()
        except ImportError as error:
            print(f"basicsr is installed but cannot be imported ({error}); going on without it", file=sys.stderr)
    from mambair.options import OptionsError

    try:
        opt = load_training_options(arguments)
    except OptionsError as error:
        print(error, file=sys.stderr)
        return USAGE_FAULT
    from mambair.system.process_memory import keep_freed_memory
    from mambair.training.dry_run import check
    from mambair.training.run import SETUP_FAULTS, train

    keep_freed_memory()
    try:
        if arguments.check:
            return check(opt)
        launcher = arguments.launcher
        return train(opt, option_file=arguments.opt, auto_resume=arguments.auto_resume, launcher=launcher)
    except SETUP_FAULTS as error:
        print(f"{arguments.opt}: {error}", file=sys.stderr)
        return USAGE_FAULT


def load_training_options(arguments: argparse.Namespace) -> dict:
    """The checked options, with --force_yml and --debug applied.

    Raises:
        OptionsError: listing every fault.
    """
    from mambair.options import load_options

    overrides = list(arguments.force_yml)
    opt = load_options(arguments.opt, is_train=True, overrides=overrides)
    if arguments.debug:
        overrides += [f"name=debug_{opt['name']}", "logger:print_freq=1", "logger:save_checkpoint_freq=8"]
        if opt["val"].get("val_freq"):
            overrides.append("val:val_freq=8")
        opt = load_options(arguments.opt, is_train=True, overrides=overrides)
    return opt


if __name__ == "__main__":
    # as a script, this file's folder is the first import path; its modules must not shadow others (load, options, ...)
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != HERE]
    sys.path.insert(0, str(HERE.parent))
    sys.exit(main())
