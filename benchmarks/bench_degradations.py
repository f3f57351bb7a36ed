"""Degraded training patches a second: in reading processes, and batch by batch on the network's device.

python benchmarks/bench_degradations.py [--workers 1 2] [--save benchmarks/results/degradations.md]

Patches of 256 pixels for x4, batches of 12, as Real-ESRGAN trains; images stay decoded in memory. Reading processes
compress real files through Pillow; batches are degraded on the GPU where torch finds one, else on the CPU with all of
torch's threads, and JPEG is computed by its arithmetic.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BATCH, PATCH, SCALE = 12, 256, 4


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "datasets" / "example" / "gt", metavar="FOLDER")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="reading processes (default: 1 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each figure (default: 10)")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(REPOSITORY))
    text = measure(options)
    print(text)
    if options.save:
        options.save.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    import torch

    from mambair.system.machine import describe_machine

    load = os.getloadavg()[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"this CPU, {torch.get_num_threads()} thread(s)"
    ways = [(f"{count} process(es)", {"degrade_on": "workers"}, count) for count in options.workers]
    ways.append((f"batches on {name}, 1 process reading", {"degrade_on": "device"}, 1))
    rows = ["| patches a second | `preset: realesrgan` | `preset: photo` |", "|---|---|---|"]
    for label, keys, workers in ways:
        opts = [data_options(options.pictures, preset=preset, **keys) for preset in ("realesrgan", "photo")]
        rates = [rate(opt, workers, device, options.seconds) for opt in opts]
        rows.append(f"| {label} | {rates[0]:.1f} | {rates[1]:.1f} |")
    about = (
        f"{describe_machine('numpy', 'Pillow')}, load average {load:.1f} before; patches of {PATCH} for x{SCALE}, "
        f"batches of {BATCH}, {options.seconds:g} s each."
    )
    return "\n".join([about, "", *rows])


def data_options(folder: Path, **keys: Any) -> dict[str, Any]:
    common = {"type": "RealESRGANDataset", "phase": "train", "dataroot_gt": str(folder), "cache": True}
    return common | {"scale": SCALE, "gt_size": PATCH, "use_hflip": True} | keys


def rate(opt: dict[str, Any], workers: int, device: Any, seconds: float) -> float:
    """Patches a second, after the first batches."""
    import torch

    from mambair.data import build_dataset
    from mambair.data.loader import TrainingBatches, build_train_loader

    dataset = build_dataset(opt)
    loader = build_train_loader(dataset, batch_size=BATCH, seed=0, num_workers=workers)
    batches = TrainingBatches(loader, partial(dataset.finish_batch, device=device))
    # what the workers have read ahead when the clock starts is read ahead again when it stops
    for _ in range(1 + 2 * workers):
        next(batches)
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        taken += BATCH
    if device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    batches.close()
    return taken / elapsed


if __name__ == "__main__":
    sys.exit(main())
