"""Time and peak memory of our networks beside SwinIR-light (basicsr's class), alternated in one process, on the CPU.

python benchmarks/bench_networks.py [--networks mambair_light_x4 mambairv2_light_x4] [--sizes 64 256] [--threads 2]

Wanted at 64x64, float32, 2 threads: MambaIR-light at most 1.5 times SwinIR-light's time, MambaIRv2-light at most 1.3
times. The networks have random weights, as neither time nor memory depends on them. Before anything is timed, outputs
of tiny networks are compared with the published ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PARITY_CASES = ("mambair_light_x3", "mambair_ps_x2", "mambairv2_light_x4", "mambairv2_ps_x2", "mambair_unet_real_dn")
PARITY = 1e-4
REFERENCE = "swinir_light_x4"

_CLASSIC = {"embed_dim": 180, "depths": [6] * 6, "d_state": 16, "mlp_ratio": 2.0, "upsampler": "pixelshuffle"}
_LIGHT = {"embed_dim": 60, "depths": [6] * 4, "d_state": 10, "mlp_ratio": 1.2, "upsampler": "pixelshuffledirect"}
_V2_BASE = _CLASSIC | {"embed_dim": 174, "num_heads": [6] * 6, "inner_rank": 64, "num_tokens": 128}
_V2_LIGHT = {
    "embed_dim": 48,
    "depths": [5] * 4,
    "num_heads": [4] * 4,
    "d_state": 8,
    "inner_rank": 32,
    "num_tokens": 64,
    "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}
_SWINIR_LIGHT = {
    "img_size": 64,
    "in_chans": 3,
    "window_size": 8,
    "depths": [6] * 4,
    "embed_dim": 60,
    "num_heads": [6] * 4,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
}

# name: (registered class, published arguments)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    REFERENCE: ("basicsr/SwinIR", _SWINIR_LIGHT | {"upscale": 4}),
    "mambair_light_x4": ("MambaIR", _LIGHT | {"upscale": 4}),
    "mambair_classic_x4": ("MambaIR", _CLASSIC | {"upscale": 4}),
    "mambairv2_light_x4": ("MambaIRv2Light", _V2_LIGHT | {"upscale": 4}),
    "mambairv2_base_x4": ("MambaIRv2", _V2_BASE | {"upscale": 4}),
    "mambair_unet": ("MambaIRUNet", {"mlp_ratio": 1.5}),
}


@dataclass
class Result:
    """One network on one size of image."""

    network: str
    size: int
    dtype: str
    seconds: float
    megabytes: float | None


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if an output is not the published one, 2 if basicsr is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others = [name for name in NETWORKS if name != REFERENCE]
    parser.add_argument("--networks", nargs="+", choices=others, default=others, metavar="NAME", help=", ".join(others))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 256], help="sides of the input (default: 64 256)")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many counts (default: 7)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory (a process each)")
    parser.add_argument("--note", default="", help="a remark for the head of the table, such as what else was running")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    parser.add_argument("--peak", nargs=3, metavar=("NAME", "SIZE", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(REPOSITORY))
    if options.peak:
        print(peak_megabytes(options.peak[0], int(options.peak[1]), options.peak[2], options.threads))
        return 0
    return compare(options)


def compare(options: argparse.Namespace) -> int:
    """Check, time, measure and print."""
    import torch

    from mambair.registry import basicsr_installed

    if not basicsr_installed():
        print("basicsr is not installed: no SwinIR to compare with")
        return 2
    torch.set_num_threads(options.threads)
    for case in PARITY_CASES:
        difference = published_difference(case)
        if difference > PARITY:
            print(f"{case}: the output differs from the published one by {difference:.1e}; nothing is timed")
            return 1
    names = [REFERENCE, *options.networks]
    results: list[Result] = []
    for size in options.sizes:
        for dtype in options.dtypes:
            times = alternated(names, size, dtype, options.repeats)
            for name in names:
                memory = None if options.no_memory else peak_in_own_process(name, size, dtype, options.threads)
                results.append(Result(name, size, dtype, times[name], memory))
    text = table(results, options)
    print(text)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(text + "\n", encoding="utf-8")
    return 0


def published_difference(case: str) -> float:
    """The largest difference of a tiny network's output from the published one."""
    import numpy as np
    import torch

    from mambair import load

    base = REPOSITORY / "tests" / "golden" / "mambair" / "cases" / case
    net = load(base.with_suffix(".pth"), param_key="params")
    torch.manual_seed(json.loads(base.with_suffix(".json").read_text()).get("gumbel_seed", 0))
    with np.load(base.with_suffix(".npz")) as arrays, torch.inference_mode():
        output = net(torch.from_numpy(arrays["input"]))
        return float(np.abs(output.numpy() - arrays["output"]).max())


def build(name: str) -> Any:
    """The network with random weights, in eval mode."""
    import torch

    from mambair.registry import ARCH_REGISTRY

    torch.manual_seed(0)
    arch, kwargs = NETWORKS[name]
    return ARCH_REGISTRY.get(arch)(**kwargs).eval()


def run(net: Any, image: Any, dtype: str) -> None:
    """One forward pass without gradients."""
    import torch

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        net(image)


def alternated(names: list[str], size: int, dtype: str, repeats: int) -> dict[str, float]:
    """The shortest time of each network, measured in turns, so that a slow phase of the machine hits all of them."""
    import torch

    nets = {name: build(name) for name in names}
    image = torch.rand(1, 3, size, size)
    best = dict.fromkeys(names, float("inf"))
    for _ in range(repeats + 1):  # one more: the first turn warms up
        for name, net in nets.items():
            began = time.perf_counter()
            run(net, image, dtype)
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def peak_megabytes(name: str, size: int, dtype: str, threads: int) -> float:
    """How much the process grows at most while the network runs, weights not counted."""
    import torch

    torch.set_num_threads(threads)
    net = build(name)
    run(net, torch.rand(1, 3, 16, 16), dtype)  # libraries and the native code are loaded now
    before = high_water()
    run(net, torch.rand(1, 3, size, size), dtype)
    return (high_water() - before) / 1e6


def high_water() -> int:
    """The most bytes this process has held so far. Linux's getrusage would count those of the parent before it, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_in_own_process(name: str, size: int, dtype: str, threads: int) -> float:
    """``peak_megabytes`` in a fresh interpreter: a process never reports less than its highest peak."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, str(size), dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(results: list[Result], options: argparse.Namespace) -> str:
    """The results as Markdown with the machine above them."""
    from mambair.machine import describe_machine

    lines = [
        f"{describe_machine('basicsr')}; {options.threads} threads, best of {options.repeats} in turns, scan: "
        f"{scan_backend()}. {options.note}".rstrip(),
        "",
        "| input | dtype | network | seconds | x SwinIR-light | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    reference = {(r.size, r.dtype): r.seconds for r in results if r.network == REFERENCE}
    for r in results:
        memory = "-" if r.megabytes is None else f"{r.megabytes:.0f}"
        ratio = r.seconds / reference[r.size, r.dtype]
        lines.append(f"| {r.size}x{r.size} | {r.dtype} | {r.network} | {r.seconds:.3f} | {ratio:.2f} | {memory} |")
    return "\n".join(lines)


def scan_backend() -> str:
    """The name of the backend that runs float32 scans here."""
    from mambair.ops import backends

    return backends.explain("cpu")[0]


if __name__ == "__main__":
    sys.exit(main())
