"""The scan on a CPU: the bars of the project, and a table of cases. On a GPU: cases and whole networks.

    python benchmarks/bench_scan.py                       # the bars
    python benchmarks/bench_scan.py --cases C1 C5 --isa avx512 avx2 --dtype fp32 bf16 --threads 1 2
    python benchmarks/bench_scan.py --device cuda --dtype fp32 bf16 [--build-official] [--networks NAME]

Contenders are plain code (benchmarks/contenders); each must agree with ours before anything is timed. They run in turns
in one process and the least time of each counts. Costs are also given in exponentials: time per state update over the
time of one exponential in the same process, which hardly depends on the machine. Results go to benchmarks/results.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contenders.scan_cores import CoreInputs
    from torch import Tensor

FOLDER = Path(__file__).resolve().parent
PARITY = 2e-5  # relative L2 distance of a contender from ours
EXPONENTIALS = 32000  # thousands (1024) in one calibration, which takes about as long as C1: equal luck with the clock


@dataclass(frozen=True)
class Case:
    """Sizes of one scan; K directions, R 0 for a sequence without step projection."""

    what: str
    B: int
    H: int
    W: int
    D: int
    N: int
    R: int
    K: int = 4

    @property
    def updates(self) -> int:
        """State updates in a forward pass."""
        return self.B * self.H * self.W * self.D * self.N * self.K


CASES = {
    "C1": Case("light 64x64", 1, 64, 64, 72, 10, 4),
    "C2": Case("light 48x48, batch 16", 16, 48, 48, 72, 10, 4),
    "C3": Case("light 256x256", 1, 256, 256, 72, 10, 4),
    "C4": Case("light 320x180", 1, 180, 320, 72, 10, 4),
    "C5": Case("classic 64x64", 1, 64, 64, 360, 16, 12),
    "C6": Case("classic 48x48, batch 4", 4, 48, 48, 360, 16, 12),
    "C7": Case("denoising 128x128, batch 2", 2, 128, 128, 216, 16, 12),
    "C8": Case("v2-light 64x64, one direction", 1, 64, 64, 48, 8, 3, 1),
    "C9": Case("sequence [B, K D, L] as mamba_ssm", 1, 64, 64, 288, 10, 0, 1),
}


@dataclass
class Bar:
    """One line of the table: a measured number and what it should be."""

    name: str
    value: float
    must: float | None  # None: for comparison only
    aim: float | None
    at_least: bool = True  # else at most

    def verdict(self) -> str:
        def reached(limit: float | None) -> bool:
            return limit is not None and (self.value >= limit if self.at_least else self.value <= limit)

        if self.must is None:
            return ""
        return "aim" if reached(self.aim) else "must" if reached(self.must) else "MISSED"

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        must, aim = ("" if limit is None else f"{sign} {limit:g}" for limit in (self.must, self.aim))
        return f"| {self.name} | {self.value:.3g} | {must} | {aim} | {self.verdict()} |"


def least_times(runs: dict[str, Callable[[], object]], repeat: int, seconds: float) -> dict[str, float]:
    """Run all in turns, at least ``repeat`` times and for at least ``seconds``; the least time of each, in seconds."""
    for run in runs.values():
        run()
    least = dict.fromkeys(runs, float("inf"))
    started, turns = time.perf_counter(), 0
    while turns < repeat or time.perf_counter() - started < seconds:
        for name, run in runs.items():
            before = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - before)
        turns += 1
    return least


def core_inputs(case: Case, dtype: Any = None) -> CoreInputs:
    """Random inputs as at the start of a training; x and the projection weight in ``dtype``."""
    import torch
    from contenders.scan_cores import CoreInputs

    g = torch.Generator().manual_seed(0)
    step = torch.exp(torch.rand(case.K, case.D, generator=g) * 4.6 - 6.9)  # log-uniform in [1e-3, 1e-1]
    shapes = {"x": (case.B, case.H, case.W, case.D), "x_weight": (case.K, case.R + 2 * case.N, case.D)}
    x, x_weight = (torch.randn(*shape, generator=g).to(dtype or torch.float32) for shape in shapes.values())
    dt_weight = (torch.rand(case.K, case.D, case.R, generator=g) * 2 - 1) * case.R**-0.5
    A = -torch.arange(1.0, case.N + 1).expand(case.K, case.D, case.N).contiguous()
    x_weight = x_weight * case.D**-0.5
    return CoreInputs(x, x_weight, dt_weight, step + torch.log(-torch.expm1(-step)), A, torch.ones(case.K, case.D))


def our_core(inputs: CoreInputs) -> Tensor:
    """One matrix product for all directions, one scan."""
    from mambair.ops import ss2d_scan

    return ss2d_scan(inputs.x, projection_of(inputs), inputs.dt_weight, inputs.dt_bias, inputs.A, inputs.D,
                     directions=range(inputs.A.shape[0]))  # fmt: skip


def projection_of(inputs: CoreInputs) -> Tensor:
    K, P, D = inputs.x_weight.shape
    return (inputs.x.reshape(-1, D) @ inputs.x_weight.reshape(K * P, D).T).view(*inputs.x.shape[:3], K, P)


def scan_runs(case: Case, dtype: Any = None) -> tuple[Callable[[], object], Callable[[], object]]:
    """The scan alone, forward without gradient, and forward with gradient and backward."""
    import torch

    from mambair.ops import selective_scan_fn, ss2d_scan

    if case.R == 0:
        g = torch.Generator().manual_seed(0)
        L = case.H * case.W
        u, delta = (torch.randn(case.B, case.D, L, generator=g) for _ in range(2))
        B, C = (torch.randn(case.B, 4, case.N, L, generator=g) for _ in range(2))
        values = [u, delta - 3, -torch.rand(case.D, case.N, generator=g), B, C]
        scan = lambda *t: selective_scan_fn(*t, delta_softplus=True)  # noqa: E731
    else:
        inputs = core_inputs(case, dtype)
        values = [inputs.x, projection_of(inputs), inputs.dt_weight, inputs.dt_bias, inputs.A, inputs.D]
        scan = lambda *t: ss2d_scan(*t, directions=range(case.K))  # noqa: E731
    leaves = [t.clone().requires_grad_() for t in values]
    grad = torch.ones_like(scan(*values))
    return (
        lambda: scan(*values),
        lambda: torch.autograd.grad(scan(*leaves), leaves, grad),
    )


def exponential_run() -> object:
    import torch

    return torch.ops.mambair.native_exponentials(EXPONENTIALS)


def compile_plain(folder: Path) -> dict[str, Path]:
    """The libraries of the plain contender by name: with the bar's -O3, and for this very processor."""
    import torch

    from mambair.ops import native

    root, compiler, libraries = Path(torch.__file__).parent, os.environ.get("CXX", "c++"), {}
    for number, flags in enumerate((["-O3"], ["-O3", "-march=native"])):
        target = folder / f"mambair_plain_{number}.so"
        subprocess.run(
            [compiler, *flags, "-std=c++20", "-fPIC", "-shared", "-w", "-isystem", str(root / "include"),
             f"-D{native.STABLE_TARGET}", f"-DNAMESPACE={target.stem}",
             str(FOLDER / "contenders" / "plain_scan.cpp"), "-o", str(target), f"-L{root / 'lib'}", "-ltorch_cpu"],
            check=True,
        )  # fmt: skip
        libraries[" ".join(["plain C++", *flags])] = target
    return libraries


def distance(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth.double()).norm() / truth.double().norm()).item()


def agreeing(case: Case, cores: dict[str, Callable[[CoreInputs], Tensor]]) -> dict[str, Callable[[CoreInputs], Tensor]]:
    """The contenders that give what ours gives; the others are named and not timed."""
    inputs = core_inputs(case)
    ours = our_core(inputs)
    distances = {name: distance(core(inputs), ours) for name, core in cores.items()}
    for name, found in distances.items():
        if found > PARITY:
            print(f"bench_scan: {name} differs from ours by {found:.1e} and is not timed", file=sys.stderr)
    return {name: core for name, core in cores.items() if distances[name] <= PARITY}


def speed_bars(cores: dict[str, Callable[[CoreInputs], Tensor]], arguments: argparse.Namespace) -> list[Bar]:
    import torch

    inputs = core_inputs(CASES["C1"])
    with torch.no_grad():
        times = least_times(
            {"ours": lambda: our_core(inputs), **{n: lambda c=c: c(inputs) for n, c in cores.items()}},
            arguments.repeat, arguments.seconds,
        )  # fmt: skip
    limits = {"step loop": (120, 160), "compiled 32-step loop": (8.5, 12), "plain C++ -O3": (17, 24)}
    return [Bar(f"core C1 over {name}", times[name] / times["ours"], *limits.get(name, (None, None))) for name in cores]


def cost_bars(arguments: argparse.Namespace) -> list[Bar]:
    import torch

    runs: dict[str, Callable[[], object]] = {"exponentials": exponential_run}
    for name in ("C1", "C3", "C5", "C2"):
        forward, both = scan_runs(CASES[name])
        runs[name] = forward
        if name in ("C1", "C2"):
            runs[f"{name} both"] = both
    times = least_times(runs, arguments.repeat, arguments.seconds)
    one = times["exponentials"] / (EXPONENTIALS * 1024)
    bars = [
        Bar("exponentials per state update, N=10 (C1)", times["C1"] / CASES["C1"].updates / one, 2.7, 2.1, False),
        Bar("exponentials per state update, N=16 (C5)", times["C5"] / CASES["C5"].updates / one, 2.1, 1.6, False),
        Bar("time per pixel, 256x256 over 64x64", times["C3"] / times["C1"] / 16, 1.25, 1.1, False),
        Bar("backward over forward (C1)", times["C1 both"] / times["C1"] - 1, 3.0, 2.0, False),
        Bar("backward over forward (C2)", times["C2 both"] / times["C2"] - 1, 3.0, 2.0, False),
    ]
    torch.set_num_threads(2)
    forward, _ = scan_runs(CASES["C1"])
    two = least_times({"two": forward}, arguments.repeat, arguments.seconds)["two"]
    torch.set_num_threads(1)
    return [*bars, Bar("2 threads over 1 (C1)", times["C1"] / two, 1.7, 1.85)]


def training_bar(arguments: argparse.Namespace) -> Bar:
    import torch
    from contenders.scan_cores import CoreInputs, copies_core, parallel_scan

    inputs = core_inputs(Case("light 32x32", 1, 32, 32, 72, 10, 4))
    leaves = CoreInputs(*(t.clone().requires_grad_() for t in inputs.tensors()))

    def run(core: Callable[[CoreInputs], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(core(leaves).square().sum(), leaves.tensors())

    def theirs() -> tuple[Tensor, ...]:
        return run(lambda t: copies_core(t, parallel_scan))

    for found, ours in zip(theirs(), run(our_core), strict=True):
        if distance(found, ours) > PARITY:
            raise SystemExit(f"bench_scan: gradients of the parallel scan differ by {distance(found, ours):.1e}")
    times = least_times({"ours": lambda: run(our_core), "theirs": theirs}, arguments.repeat, arguments.seconds)
    return Bar("forward and backward over autograd of a parallel scan", times["theirs"] / times["ours"], 30, 45)


def accuracy_bars() -> list[Bar]:
    """Relative L2 error against the definition in float64, on a real size."""
    import torch

    from mambair.ops import reference, ss2d_scan

    inputs = core_inputs(Case("light 32x32", 1, 32, 32, 72, 10, 4))
    values = [inputs.x, projection_of(inputs), inputs.dt_weight, inputs.dt_bias, inputs.A, inputs.D]
    names = ("x", "projection", "dt_weight", "dt_bias", "A", "D")
    results = []
    for scan, dtype in ((ss2d_scan, torch.float32), (reference.ss2d_scan, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in values]
        y = scan(*leaves)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), leaves)])
    errors = dict(zip(("y", *names), (distance(a, b) for a, b in zip(*results, strict=True)), strict=True))
    reduced = ("dt_bias", "A", "D")
    return [
        Bar("relative L2 error, forward", errors["y"], 2e-7, None, False),
        Bar("the same, worst of x, projection, dt_weight", max(errors[n] for n in names if n not in reduced), 1e-6,
            None, False),
        Bar("the same, worst of A, D, dt_bias", max(errors[n] for n in reduced), 3e-6, None, False),
    ]  # fmt: skip


def memory_bar() -> Bar | None:
    """Peak memory of forward and backward at 256x256 beyond inputs, outputs and states; Linux only."""
    if sys.platform != "linux":
        return None
    import torch

    from mambair.system.process_memory import PeakMemory

    inputs = core_inputs(CASES["C3"])
    values = [inputs.x, projection_of(inputs), inputs.dt_weight, inputs.dt_bias, inputs.A, inputs.D]
    ctypes.CDLL(None).malloc_trim(0)  # else memory freed before would be taken up unseen
    memory = PeakMemory()
    y, states = torch.ops.mambair.ss2d_scan(*values, [0, 1, 2, 3], True)
    outputs = [y, states, *torch.ops.mambair.ss2d_scan_backward(y, *values, states, [0, 1, 2, 3])]
    wanted = sum(t.numel() * t.element_size() for t in outputs)
    extra = max((memory.growth() or 0) - wanted, 0) / 2**20
    return Bar("extra memory of C3 forward and backward, MB", extra, 8.0, 2.0, False)


def case_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import torch

    from mambair.ops import native

    rows = []
    for isa in arguments.isa or [native.isa()]:
        native.use_isa(isa)
        for name in arguments.cases:
            for dtype in arguments.dtype:
                for threads in arguments.threads:
                    torch.set_num_threads(threads)
                    kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
                    forward, both = scan_runs(CASES[name], kind)
                    runs = {"exponentials": exponential_run, "forward": forward, "both": both}
                    times = least_times(runs, arguments.repeat, arguments.seconds)
                    one = times["exponentials"] / (EXPONENTIALS * 1024)
                    row = {"case": name, "what": CASES[name].what, "isa": isa, "dtype": dtype, "threads": threads,
                           "forward_ms": times["forward"] * 1e3, "both_ms": times["both"] * 1e3,
                           "exponentials": times["forward"] / CASES[name].updates / one}  # fmt: skip
                    print(row_line(row), flush=True)
                    rows.append(row)
    return rows


CASE_HEADER = (
    "| case | instruction set | dtype | threads | forward ms | forward and backward ms | exponentials per state |\n"
    "|---|---|---|---|---|---|---|"
)


def row_line(row: dict[str, Any]) -> str:
    return (
        f"| {row['case']} {row['what']} | {row['isa']} | {row['dtype']} | {row['threads']} | {row['forward_ms']:.2f} | "
        f"{row['both_ms']:.2f} | {row['exponentials']:.2f} |"
    )


def environment() -> dict[str, str]:
    import torch

    from mambair.ops import native

    model = platform.processor() or "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "processor": model,
            "cpus": str(os.cpu_count()), "load": load, "instruction set": native.isa(), "torch": torch.__version__,
            "python": platform.python_version(), "system": platform.platform()}  # fmt: skip


def write_results(folder: Path, bars: list[Bar], rows: list[dict[str, Any]]) -> Path:
    """Markdown for reading and JSON for machines, side by side."""
    from mambair.system.atomic_file import atomic_path

    about = environment()
    kind = "cases" if rows else "bars"
    name = f"scan-{kind}-{about['date'][:10]}-{about['instruction set']}"
    text = ["# The scan on a CPU", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    if bars:
        text += [
            "| bar | measured | must | aim | reached |",
            "|---|---|---|---|---|",
            *(bar.line() for bar in bars),
            "",
        ]
    if rows:
        text += [CASE_HEADER, *(row_line(row) for row in rows), ""]
    content = {"environment": about, "bars": [asdict(b) | {"reached": b.verdict()} for b in bars], "cases": rows}
    with atomic_path(folder / f"{name}.json") as path:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_path(folder / f"{name}.md") as path:
        path.write_text("\n".join(text), encoding="utf-8")
    return folder / f"{name}.md"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: see scan_on_gpu.py")
    parser.add_argument(
        "--build-official", action="store_true", help="cuda: build mamba_ssm's kernel from its source package first"
    )
    parser.add_argument(
        "--networks", nargs="*", default=[], choices=["mambair_light_x4", "mambair_classic_x4"], help="cuda: only these"
    )
    parser.add_argument("--rehearse", action="store_true", help="cuda: the whole program on a CPU, at tiny sizes")
    parser.add_argument("--cases", nargs="*", choices=sorted(CASES), default=[], help="measure these, not the bars")
    parser.add_argument("--isa", nargs="*", default=[], help="instruction sets for --cases (default: the one in use)")
    parser.add_argument("--dtype", nargs="*", choices=["fp32", "bf16", "fp16"], default=["fp32"])
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--repeat", type=int, default=15, help="turns at least (default 15)")
    parser.add_argument("--seconds", type=float, default=5.0, help="least time for each group of contenders")
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="folder of the results")
    return parser.parse_args()


def measure_bars(arguments: argparse.Namespace) -> list[Bar]:
    from contenders.scan_cores import contenders

    bars = accuracy_bars()
    memory = memory_bar()
    with tempfile.TemporaryDirectory(prefix="mambair-bench-") as scratch:
        cores = agreeing(CASES["C1"], contenders(compile_plain(Path(scratch))))
        bars += [*speed_bars(cores, arguments), *cost_bars(arguments), training_bar(arguments)]
    return bars if memory is None else [*bars, memory]


def main() -> int:
    """Returns 0, or 1 when a bar that must be reached was missed."""
    arguments = parse()
    sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]
    if arguments.device == "cuda":
        from scan_on_gpu import measure

        return measure(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not take time from measured ones
    import torch

    from mambair.ops import native

    torch.set_num_threads(1)
    if not native.load():
        raise SystemExit(f"bench_scan: no native library: {native.why_not()}")
    rows = case_rows(arguments) if arguments.cases else []
    bars = [] if arguments.cases else measure_bars(arguments)
    for bar in bars:
        print(bar.line())
    print(write_results(arguments.output, bars, rows))
    return 1 if any(bar.verdict() == "MISSED" for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
