"""Time and peak memory of our networks beside a well-known one, alternated in one process, on the CPU.

Restoration networks stand beside SwinIR-light (basicsr's class), backbones beside timm's DeiT-tiny and Swin-tiny.

python benchmarks/bench_networks.py [--networks mambair_light_x4 mambairv2_light_x4] [--sizes 64 256] [--threads 2]
python benchmarks/bench_networks.py --group backbones [--sizes 224 512 1024]

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

# name: (registered class, published arguments); "timm/NAME" is a model of timm, built for the size of the input
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "swinir_light_x4": ("basicsr/SwinIR", _SWINIR_LIGHT | {"upscale": 4}),
    "mambair_light_x4": ("MambaIR", _LIGHT | {"upscale": 4}),
    "mambair_classic_x4": ("MambaIR", _CLASSIC | {"upscale": 4}),
    "mambairv2_light_x4": ("MambaIRv2Light", _V2_LIGHT | {"upscale": 4}),
    "mambairv2_base_x4": ("MambaIRv2", _V2_BASE | {"upscale": 4}),
    "mambair_unet": ("MambaIRUNet", {"mlp_ratio": 1.5}),
    "deit_tiny": ("timm/deit_tiny_patch16_224", {}),
    "swin_tiny": ("timm/swin_tiny_patch4_window7_224", {}),
    "vim_tiny": ("timm/vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2", {}),
    "vmamba_tiny": ("timm/vmamba_tiny_s1l8", {}),
}
# group: (input sizes, the network the others are compared with, the others)
GROUPS: dict[str, tuple[list[int], str, list[str]]] = {
    "restoration": (
        [64, 256],
        "swinir_light_x4",
        ["mambair_light_x4", "mambair_classic_x4", "mambairv2_light_x4", "mambairv2_base_x4", "mambair_unet"],
    ),
    "backbones": ([224, 512, 1024], "deit_tiny", ["swin_tiny", "vim_tiny", "vmamba_tiny"]),
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
    parser.add_argument("--group", choices=GROUPS, default="restoration")
    every = ", ".join(NETWORKS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NAME", help=f"of the group: {every}")
    parser.add_argument("--sizes", nargs="+", type=int, help="sides of the input (default: those of the group)")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many counts (default: 7)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory (a process each)")
    parser.add_argument("--note", default="", help="a remark for the head of the table, such as what else was running")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    parser.add_argument("--peak", nargs=3, metavar=("NAME", "SIZE", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes, options.reference, others = GROUPS[options.group]
    options.sizes = options.sizes or sizes
    options.networks = [name for name in options.networks or others if name != options.reference]
    sys.path.insert(0, str(REPOSITORY))
    if options.peak:
        print(peak_megabytes(options.peak[0], int(options.peak[1]), options.peak[2], options.threads))
        return 0
    return compare(options)


def compare(options: argparse.Namespace) -> int:
    """Check, time, measure and print."""
    import torch

    from mambair.system.process_memory import keep_freed_memory

    lacking = missing_package(options.group)
    if lacking:
        print(f"{lacking} is not installed: there is nothing to compare with")
        return 2
    keep_freed_memory()  # as the commands do
    torch.set_num_threads(options.threads)
    for case in PARITY_CASES:
        difference = published_difference(case)
        if difference > PARITY:
            print(f"{case}: the output differs from the published one by {difference:.1e}; nothing is timed")
            return 1
    names = [options.reference, *options.networks]
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


def missing_package(group: str) -> str | None:
    """The package the group's reference comes from, if it is not installed."""
    import importlib.util

    from mambair.registry import basicsr_installed

    if group == "backbones":
        return None if importlib.util.find_spec("timm") else "timm"
    return None if basicsr_installed() else "basicsr"


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


def build(name: str, size: int) -> Any:
    """The network with random weights for images of size x size, in eval mode."""
    import torch

    from mambair import archs

    torch.manual_seed(0)
    arch, kwargs = NETWORKS[name]
    if arch.startswith("timm/"):
        import timm

        import mambair.backbones  # noqa: F401, makes its models known to timm

        sized = {} if "vmamba" in arch else {"img_size": size}  # VMamba takes any size as it is
        return timm.create_model(arch.removeprefix("timm/"), pretrained=False, **sized).eval()
    return archs.build(arch, kwargs).eval()


def run(net: Any, image: Any, dtype: str) -> None:
    """One forward pass without gradients."""
    import torch

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        net(image)


def alternated(names: list[str], size: int, dtype: str, repeats: int) -> dict[str, float]:
    """The shortest time of each network, measured in turns, so that a slow phase of the machine hits all of them."""
    import torch

    nets = {name: build(name, size) for name in names}
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

    from mambair.system.process_memory import PeakMemory

    torch.set_num_threads(threads)
    small = 64 if size > 64 else 16
    run(build(name, small), torch.rand(1, 3, small, small), dtype)  # libraries and the native code are loaded now
    net = build(name, size)
    memory = PeakMemory()
    run(net, torch.rand(1, 3, size, size), dtype)
    return (memory.growth() or 0) / 1e6


def peak_in_own_process(name: str, size: int, dtype: str, threads: int) -> float:
    """``peak_megabytes`` in a fresh interpreter: a process never reports less than its highest peak."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", name, str(size), dtype]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(results: list[Result], options: argparse.Namespace) -> str:
    """The results as Markdown with the machine above them."""
    from mambair.system.machine import describe_machine

    lines = [
        f"{describe_machine('basicsr', 'timm')}; {options.threads} threads, best of {options.repeats} in turns, scan: "
        f"{scan_backend()}. {options.note}".rstrip(),
        "",
        f"| input | dtype | network | seconds | x {options.reference} | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    reference = {(r.size, r.dtype): r.seconds for r in results if r.network == options.reference}
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
