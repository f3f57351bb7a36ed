"""Convert weights between .pth and .safetensors, with the architecture written into the file.

    python scripts/convert_checkpoint.py mambair_lightSR_x4.pth mambair_lightSR_x4.safetensors --task sr

The weights are recognised by content and must fit their network; names are brought to the current ones (wrapper
prefixes go). The output holds one set of weights: that of --param-key, else the averaged one where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

from mambair.system.exit_codes import ends_in_order  # noqa: E402

TASKS = ("sr", "denoise", "jpeg", "restoration")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help=".pth, .pt, .ckpt or .safetensors, or the name or address of published weights")
    parser.add_argument("output", type=Path, help="the file to write; its suffix is the format")
    parser.add_argument("--param-key", help="which entry of a .pth holds the weights (params, params_ema ...)")
    parser.add_argument("--task", choices=TASKS, help="what they do (default: as in the input; sr if they enlarge)")
    parser.add_argument("--half", action="store_true", help="store float16; loading gives float32 again")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")
    return parser.parse_args(argv)


@ends_in_order()
def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 when the weights cannot be converted, 2 for a fault of usage."""
    arguments = parse_arguments(argv)
    if arguments.output.exists() and not arguments.overwrite:
        print(f"{arguments.output} is there already; give another name or --overwrite", file=sys.stderr)
        return 2
    from mambair.weights.checkpoint import CheckpointError
    from mambair.weights.fetch import FetchError

    try:
        print(convert(arguments))
    except (CheckpointError, FetchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def convert(arguments: argparse.Namespace) -> str:
    """Read, check, write; returns one line on what was written.

    Raises:
        CheckpointError: the weights cannot be read, recognised, fitted to their network, or written.
    """
    import torch

    from mambair import weights
    from mambair.system.download import download_bar
    from mambair.weights.checkpoint import TASK_KEY, network_metadata
    from mambair.weights.fetch import locate
    from mambair.weights.loading import build_empty, fill
    from mambair.weights.recognition import recognise

    checkpoint = weights.read(locate(arguments.input, progress=download_bar), arguments.param_key)
    arch, kwargs = recognise(checkpoint)
    net = fill(build_empty(checkpoint, arch, kwargs), checkpoint, arch, kwargs)
    task = arguments.task or checkpoint.metadata.get(TASK_KEY) or ("sr" if int(net.upscale) > 1 else "restoration")
    metadata = checkpoint.metadata | network_metadata(arch, kwargs, task)
    tensors = {name: checkpoint.state_dict[name] for name in net.state_dict()}  # .safetensors files sort by size
    if arguments.half:
        tensors = {name: t.to(torch.float16) if t.is_floating_point() else t for name, t in tensors.items()}
    weights.write(arguments.output, tensors, metadata)
    size = arguments.output.stat().st_size / 1e6
    return f"{arguments.output}: {arch}, {task}, {len(tensors)} tensors, {size:.2f} MB, {json.dumps(kwargs)}"


if __name__ == "__main__":
    sys.exit(main())
