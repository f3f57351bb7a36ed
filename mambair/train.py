"""Train a network from an option file: ``mambair train -opt FILE`` and ``python mambair/train.py -opt FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
from mambair.system.console import note
from mambair.system.devices import DTYPES
from mambair.system.exit_codes import USAGE_ERROR, ends_in_order

EXAMPLES = """
mambair train -opt options/train_SR_x4.yml
mambair train -opt options/train_SR_x4.yml --auto_resume --force_yml train:total_iter=1000
torchrun --nproc_per_node=4 mambair/train.py -opt options/train_SR_x4.yml
"""


def _parser(prog: str) -> argparse.ArgumentParser:
    """The command line, with BasicSR's names of options."""
    parser = command_parser(prog, "Train a network as an option file says.", EXAMPLES)
    parser.add_argument("-opt", "--opt", required=True, type=option_file, metavar="FILE", help=OPTION_FILE_HELP)
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
        help="slurm: started by srun; pytorch is accepted from old scripts and changes nothing",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_device(parser.add_argument)
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="mixed precision in place of train.amp of the file; scans, losses and weights stay in fp32",
    )
    add_offline(parser.add_argument)
    add_import(parser.add_argument)
    return parser


@ends_in_order("the same command with --auto_resume goes on from the newest checkpoint, if there is one")
def main(argv: Sequence[str] | None = None) -> int:
    """Train.

    Args:
        argv: without the program's name; None takes the command line of the script ``train.py``.

    Returns:
        The exit code, see `mambair.system.exit_codes`; wrong arguments leave through argparse's SystemExit(2).
    """
    parser = _parser("train.py" if argv is None else "mambair train")
    arguments = parser.parse_args(argv)
    # torch and everything above it only now: --help answers at once
    import_own_code(parser, arguments)
    from mambair.registry import basicsr_installed, connect_basicsr

    if basicsr_installed():
        try:
            connect_basicsr()
        except ImportError as error:
            note(f"basicsr is installed but cannot be imported ({error}); going on without it")
    from mambair.options import OptionsError, SettingError, with_place

    precision = {None: [], "fp32": ["train:amp=off"]}.get(arguments.dtype, [f"train:amp={arguments.dtype}"])
    arguments.force_yml = [*arguments.force_yml, *device_in_options(parser, arguments.device), *precision]
    try:
        opt = load_training_options(arguments)
    except OptionsError as error:
        note(str(error))
        return USAGE_ERROR
    from mambair.system.process_memory import keep_freed_memory
    from mambair.training.dry_run import check
    from mambair.training.run import train

    keep_freed_memory()
    try:
        if arguments.check:
            return check(opt)
        return train(
            opt,
            option_file=arguments.opt,
            auto_resume=arguments.auto_resume,
            launcher=arguments.launcher,
            offline=arguments.offline,
        )
    except SettingError as error:
        note(with_place(error, arguments.opt, arguments.force_yml))
        return USAGE_ERROR


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
    sys.exit(main())
