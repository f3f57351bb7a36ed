"""Time of one step of adversarial training: ours against basicsr's, with the same networks, alternating.

python benchmarks/bench_adversarial.py [--steps 5] [--save benchmarks/results/adversarial.md]

The networks are the small MambaIR x4 and UNetDiscriminatorSN of 32 features, on 4 patches of 128 x 128. Both models are
checked to end with equal weights before they are timed.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {
    "type": "MambaIR",
    "upscale": 4,
    "embed_dim": 40,
    "depths": [4, 4],
    "d_state": 4,
    "mlp_ratio": 1.2,
    "drop_path_rate": 0.0,
    "upsampler": "pixelshuffledirect",
}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if the two end with other weights, 2 if basicsr is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each; the best counts (default: 5)")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(REPOSITORY))
    from mambair.registry import basicsr_installed, connect_basicsr
    from mambair.system.atomic_file import atomic_path
    from mambair.system.machine import describe_machine

    if not basicsr_installed():
        print("basicsr is not installed: nothing to compare with")
        return 2
    connect_basicsr()
    lines = [
        f"{describe_machine('basicsr')}; seconds of one step, best of {options.steps}.",
        "",
        "| model | ours | basicsr | ours / basicsr |",
        "|---|---|---|---|",
    ]
    for name in ("SRGANModel", "ESRGANModel"):
        times = compare(name, options.steps)
        if times is None:
            print(f"{name}: the weights differ after the first steps; not timed")
            return 1
        ours, theirs = times
        lines.append(f"| {name} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |")
    print("\n".join(lines))
    if options.save:
        with atomic_path(options.save) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def compare(name: str, steps: int) -> tuple[float, float] | None:
    """The best time of a step of each, or None if their weights differ after two steps."""
    import torch

    from mambair.models import build_model

    with tempfile.TemporaryDirectory() as folder:
        ours = build_model(option_dictionary(name, Path(folder)))
        theirs = build_model(option_dictionary(f"basicsr/{name}", Path(folder)))
    theirs.net_g.load_state_dict(ours.net_g.state_dict())
    theirs.net_d.load_state_dict(ours.net_d.state_dict())
    best = [float("inf"), float("inf")]
    for iteration in range(1, steps + 3):
        batch = {"lq": torch.rand(4, 3, 32, 32), "gt": torch.rand(4, 3, 128, 128)}
        for index, model in enumerate((ours, theirs)):
            began = time.perf_counter()
            model.feed_data(batch)
            model.optimize_parameters(iteration)
            if iteration > 2:
                best[index] = min(best[index], time.perf_counter() - began)
        if iteration == 2 and not all(map(torch.equal, ours.net_g.parameters(), theirs.net_g.parameters())):
            return None
    return best[0], best[1]


def option_dictionary(name: str, folder: Path) -> dict[str, Any]:
    """Options that both engines' models read."""
    adam = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
    keys = ("experiments_root", "models", "training_states", "visualization")
    return {
        "name": "bench",
        "is_train": True,
        "model_type": name,
        "scale": 4,
        "num_gpu": 0,
        "dist": False,
        "network_g": copy.deepcopy(SMALL),
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 32},
        "path": {key: str(folder / key) for key in keys},
        "train": {
            "total_iter": 100,
            "optim_g": dict(adam),
            "optim_d": dict(adam),
            "scheduler": {"type": "MultiStepLR", "milestones": [50], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "gan_opt": {
                "type": "GANLoss",
                "gan_type": "vanilla",
                "real_label_val": 1.0,
                "fake_label_val": 0.0,
                "loss_weight": 0.1,
            },
        },
        "val": {},
        "logger": {},
    }


if __name__ == "__main__":
    sys.exit(main())
