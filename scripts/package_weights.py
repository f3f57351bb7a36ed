"""Turn a finished training into a file of weights that travels: .safetensors with what is known of the training.

    python scripts/package_weights.py --experiment experiments/MambaIR_small_SR_x4 \
        --training-data "482 images of BSDS500 and T91" --output mambair/weights/mambair_small_x4.safetensors
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # works uninstalled, too

from mambair.system.exit_codes import ends_in_order  # noqa: E402


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Package the weights of a finished training.")
    parser.add_argument("--experiment", type=Path, required=True, help="folder of the training: experiments/<name>")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--training-data", required=True, help="what it was trained on, in words")
    parser.add_argument(
        "--param-key",
        choices=("params_ema", "params"),
        help="averaged or last weights; default: averaged, if the training kept an average",
    )
    parser.add_argument(
        "--continues",
        type=Path,
        metavar="FILE",
        help="packaged weights it started from: hours and iterations are added",
    )
    return parser.parse_args(argv)


def training_record(metrics_file: Path) -> dict[str, float | int]:
    """Iterations and hours of a training from its metrics.jsonl; iterations repeated after a resume count once."""
    from mambair.training.report import read_records

    seconds_of: dict[int, float] = {}
    for record in read_records(metrics_file):
        if "seconds" in record:  # mean seconds an iteration since the report before
            seconds_of[record["iter"]] = record["seconds"]
    if not seconds_of:
        raise ValueError(f"{metrics_file}: there is no report of an iteration in it")
    seconds, before = 0.0, 0
    for iteration in sorted(seconds_of):
        seconds += seconds_of[iteration] * (iteration - before)
        before = iteration
    return {"iterations": before, "hours": round(seconds / 3600, 2)}


@ends_in_order()
def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from mambair import weights
    from mambair.system.bounded_reader import parse_json
    from mambair.system.machine import processor_name

    checkpoint = weights.read(arguments.experiment / "models" / "net_g_latest.pth", arguments.param_key)
    record = training_record(arguments.experiment / "metrics.jsonl")
    if arguments.continues:
        earlier = parse_json(weights.read(arguments.continues).metadata["mambair.training"])
        record = {key: round(value + earlier[key], 2) for key, value in record.items()}
        record["cycles"] = earlier.get("cycles", 1) + 1
    training = {
        "option_file": next(path.name for path in sorted(arguments.experiment.glob("*.yml"))),
        "data": arguments.training_data,
        **record,
        "processor": processor_name(),
    }
    metadata = checkpoint.metadata | {"mambair.training": json.dumps(training), "license": "Apache-2.0"}
    weights.write(arguments.output, checkpoint.state_dict, metadata)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB, {json.dumps(training)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
