"""The part of bench_scan.py that needs a GPU: scan cores and whole networks, contenders in turns.

Ours (Triton), the torch path and, where it is at hand, mamba_ssm's kernel driven as the published code drives it. Times
are those of CUDA events, the least of each contender; memory is the peak beyond what was there before. The floor of a
core is the longer of: its exponentials at 16 per clock and multiprocessor, its first reading and last writing at the
measured speed of a copy; with backward, twice the exponentials and three times the bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from bench_networks import NETWORKS
from bench_scan import CASES, Case, core_inputs, distance, our_core
from contenders.official_gpu import Kernel, build_kernel, find_kernel, official_core
from contenders.scan_cores import CoreInputs
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARITY = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 5e-3}  # relative L2 distance of a contender's output from ours
EXPONENTIALS_PER_CLOCK = 16  # of a multiprocessor
# network of bench_networks.py, images of a training step, side of its images
TRAINING = {"mambair_light_x4": (16, 48), "mambair_classic_x4": (4, 48)}
INFERENCE_SIDE = 256
Runs = tuple[Callable[..., Any], Callable[..., Any] | None, Sequence[Tensor]]  # ours, mamba_ssm's, the leaves


@dataclass
class Row:
    """One contender on one case; nan where nothing could be measured."""

    case: str
    what: str
    dtype: str
    task: str  # forward, both, inference, training
    contender: str
    milliseconds: float
    megabytes: float
    floor: float = float("nan")  # milliseconds
    images: int = 1

    def line(self, ours: Row) -> str:
        faster, larger = self.milliseconds / ours.milliseconds, self.megabytes / max(ours.megabytes, 1e-9)
        return (f"| {self.case} {self.what} | {self.dtype} | {self.task} | {self.contender} | {self.milliseconds:.3f} "
                f"| {faster:.2f} | {self.megabytes:.0f} | {larger:.2f} | {self.floor:.3f} "
                f"| {1e3 * self.images / self.milliseconds:.1f} |")  # fmt: skip


HEADER = (
    "| case | dtype | task | contender | ms | of ours | MB | of ours | floor ms | per s |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@contextmanager
def scan_backend(name: str) -> Iterator[None]:
    """Force a backend of mambair's scans; an empty name leaves the choice to it."""
    before = os.environ.get("MAMBAIR_SCAN_BACKEND")
    os.environ["MAMBAIR_SCAN_BACKEND"] = name
    try:
        yield
    finally:
        os.environ.pop("MAMBAIR_SCAN_BACKEND")
        if before is not None:
            os.environ["MAMBAIR_SCAN_BACKEND"] = before


def with_backend(name: str, run: Callable[[], Any]) -> Callable[[], Any]:
    def forced() -> Any:
        with scan_backend(name):
            return run()

    return forced


def once(run: Callable[[], object], device: str) -> float:
    """Seconds of one run."""
    if device != "cuda":
        before = time.perf_counter()
        run()
        return time.perf_counter() - before
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def least_times(
    runs: dict[str, Callable[[], object]], repeat: int, seconds: float, device: str = "cuda"
) -> dict[str, float]:
    """As in bench_scan.py: in turns, after one run of each; the least time of each, in seconds."""
    for run in runs.values():
        run()
    least = dict.fromkeys(runs, float("inf"))
    started, turns = time.perf_counter(), 0
    while turns < repeat or time.perf_counter() - started < seconds:
        for name, run in runs.items():
            least[name] = min(least[name], once(run, device))
        turns += 1
    return least


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Memory that a run takes beyond what is allocated before; nan without a GPU."""
    if device != "cuda":
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def on_device(inputs: CoreInputs, device: str) -> CoreInputs:
    return CoreInputs(*(t.to(device) for t in inputs.tensors()))


def sequence_runs(case: Case, dtype: torch.dtype, kernel: Kernel | None, device: str) -> Runs:
    """Our scan and mamba_ssm's on [B, D, L], mamba_ssm's layout, and the leaves: B and C in four groups."""
    from mambair.ops import selective_scan_fn

    g, length = torch.Generator().manual_seed(0), case.H * case.W
    u, delta = (torch.randn(case.B, case.D, length, generator=g) for _ in range(2))
    B, C = (torch.randn(case.B, 4, case.N, length, generator=g) for _ in range(2))
    A, D, bias = -torch.rand(case.D, case.N, generator=g), torch.ones(case.D), torch.full((case.D,), -3.0)
    leaves = [t.to(device) for t in (u.to(dtype), delta.to(dtype), A, B.to(dtype), C.to(dtype), D, bias)]

    def ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Any:
        return selective_scan_fn(u, delta, A, B, C, D, None, bias, True)

    official = None if kernel is None else lambda *tensors: kernel(*tensors, True)
    return ours, official, leaves


def core_runs(case: Case, dtype: torch.dtype, kernel: Kernel | None, device: str) -> Runs:
    """Ours and mamba_ssm's, from x to the sum of the directions, the projection of x included, and the leaves."""
    inputs = on_device(core_inputs(case, dtype), device)

    def ours(*tensors: Tensor) -> Tensor:
        return our_core(CoreInputs(*tensors))

    official = None if kernel is None else lambda *tensors: official_core(CoreInputs(*tensors), kernel)
    return ours, official, inputs.tensors()


def agreeing(outputs: dict[str, Callable[[], Tensor]], dtype: str, reference: str) -> list[str]:
    """Names whose output is that of the first; the others are named on screen and not timed."""
    truth = outputs[reference]()
    found = {name: distance(run(), truth) for name, run in outputs.items()}
    for name, far in found.items():
        if not far <= PARITY[dtype]:
            print(f"bench_scan: {name} differs from {reference} by {far:.1e} and is not timed", file=sys.stderr)
    return [name for name, far in found.items() if far <= PARITY[dtype]]


def measure_case(
    name: str, case: Case, dtype: str, kernel: Kernel | None, floor: Floor, arguments: argparse.Namespace,
    device: str = "cuda", forced: Sequence[str] = ("triton", "torch"),
) -> list[Row]:  # fmt: skip
    """Forward without gradient, then forward and backward, of all contenders that agree with ours."""
    make = sequence_runs if case.R == 0 else core_runs
    ours, official, leaves = make(case, DTYPES[dtype], kernel, device)
    runs = {**dict.fromkeys(forced, ours), **({} if official is None else {"mamba_ssm": official})}
    rows: list[Row] = []
    wanting = [t.clone().requires_grad_() for t in leaves]

    def forward(contender: str) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return runs[contender](*leaves)

        return with_backend(contender, run) if contender in forced else run

    def both(contender: str) -> Callable[[], Any]:
        def run() -> Any:
            y = runs[contender](*wanting)
            return torch.autograd.grad(y, wanting, torch.ones_like(y))

        return with_backend(contender, run) if contender in forced else run

    names = agreeing({n: forward(n) for n in runs}, dtype, forced[0])
    for task, maker in (("forward", forward), ("both", both)):
        chosen = {n: maker(n) for n in names}
        memory = {n: peak_megabytes(run, device) for n, run in chosen.items()}
        times = least_times(chosen, arguments.repeat, arguments.seconds, device)
        least = floor.milliseconds(case, DTYPES[dtype], task == "both")
        rows += [Row(name, case.what, dtype, task, n, times[n] * 1e3, memory[n], least, case.B) for n in chosen]
    return rows


@dataclass
class Floor:
    """What the GPU could do at best."""

    exponentials: float  # per second
    bytes: float  # per second, read and written

    def milliseconds(self, case: Case, dtype: torch.dtype, backward: bool) -> float:
        channels_and_tokens = case.B * case.H * case.W * case.D
        exponentials = channels_and_tokens * case.K * (case.N + 2) * (2 if backward else 1)  # 2 for the softplus
        moved = channels_and_tokens * 2 * dtype.itemsize * (3 if backward else 1)
        return 1e3 * max(exponentials / self.exponentials, moved / self.bytes)


def measured_floor() -> Floor:
    """From the highest clock that nvidia-smi names, and the speed of a large copy."""
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    index = torch.cuda.current_device()
    clock = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[index]) * 1e6
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = least_times({"copy": lambda: target.copy_(source)}, 15, 0.5)["copy"]
    processors = torch.cuda.get_device_properties(index).multi_processor_count
    return Floor(EXPONENTIALS_PER_CLOCK * processors * clock, 2 * source.numel() * 4 / seconds)


def network_rows(
    name: str, dtype: str, backends: Sequence[str], arguments: argparse.Namespace, device: str = "cuda",
    side: int = INFERENCE_SIDE, training: tuple[int, int] | None = None,
) -> list[Row]:  # fmt: skip
    """Inference of one image, and one training step (forward, L1 loss, backward, Adam), by each backend."""
    from mambair.archs import build

    arch, kwargs = NETWORKS[name]
    torch.manual_seed(0)
    net = build(arch, kwargs).to(device)
    autocast = torch.autocast(device, dtype=DTYPES[dtype], enabled=dtype != "fp32")
    image = torch.rand(1, 3, side, side, device=device)
    count, crop = training or TRAINING[name]
    batch = torch.rand(count, 3, crop, crop, device=device)
    with torch.no_grad():
        wanted = torch.rand_like(net.eval()(batch[:1])).expand(count, -1, -1, -1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-9)  # so small that all steps cost the same

    def infer() -> Tensor:
        with torch.no_grad(), autocast:
            return net.eval()(image)

    def step() -> None:
        optimiser.zero_grad()
        with autocast:
            loss = (net.train()(batch) - wanted).abs().mean()
        loss.backward()
        optimiser.step()

    names = agreeing({b: with_backend(b, infer) for b in backends}, dtype, backends[0])
    rows = []
    for task, run, images in (("inference", infer, 1), ("training", step, count)):
        chosen = {b: with_backend(b, run) for b in names}
        for each in chosen.values():
            each()  # the optimiser's memory is not that of a step
        memory = {b: peak_megabytes(each, device) for b, each in chosen.items()}
        times = least_times(chosen, min(arguments.repeat, 5), arguments.seconds, device)
        what = f"{side}x{side}" if task == "inference" else f"{crop}x{crop}, batch {count}"
        rows += [Row(name, what, dtype, task, b, times[b] * 1e3, memory[b], images=images) for b in names]
    return rows


def lines(rows: Sequence[Row]) -> list[str]:
    """The table's lines, each beside ours of the same case and task."""
    ours = {(r.case, r.dtype, r.task): r for r in reversed(rows)}  # ours is the first contender
    return [row.line(ours[row.case, row.dtype, row.task]) for row in rows]


def environment(official: str, floor: Floor, device: str = "cuda") -> dict[str, str]:
    """What the results depend on, by name; of a rehearsal only what there is."""
    from mambair.system.machine import describe_machine

    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if device == "cpu":
        return {"date": date, "GPU": "rehearsal without a GPU", "host": describe_machine(), "mamba_ssm": official}
    import triton

    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "date": date,
        "GPU": torch.cuda.get_device_name(),
        "driver": subprocess.run(driver, capture_output=True, text=True, check=True).stdout.split()[0],
        "CUDA of torch": str(torch.version.cuda),
        "triton": triton.__version__,
        "host": describe_machine(),
        "mamba_ssm": official,
        "floor": f"{floor.exponentials / 1e12:.2f} T exponentials/s, {floor.bytes / 1e12:.2f} TB/s copied",
    }


def write_results(folder: Path, about: dict[str, str], rows: Sequence[Row]) -> Path:
    """Markdown for reading and JSON for machines, side by side."""
    from mambair.system.atomic_file import atomic_path

    gpu = "-".join(about["GPU"].lower().replace("nvidia", "").split())
    name = f"scan-cuda-{about['date'][:10]}-{gpu}"
    text = ["# The scan on a GPU", "", *(f"- {k}: {v}" for k, v in about.items()), "", HEADER, *lines(rows), ""]
    plain = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]  # JSON has no NaN
    content = {"environment": about, "rows": plain}
    with atomic_path(folder / f"{name}.json") as path:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_path(folder / f"{name}.md") as path:
        path.write_text("\n".join(text), encoding="utf-8")
    return folder / f"{name}.md"


def measure(arguments: argparse.Namespace) -> int:
    """All cases and networks on the GPU at hand; returns the exit code."""
    from mambair.ops import mamba_ssm, triton_scan

    device, ours = ("cpu", "native") if arguments.rehearse else ("cuda", "triton")
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("bench_scan: --device cuda: torch finds no CUDA device")
        reason = triton_scan.why_not("cuda")
        if reason is not None:
            raise SystemExit(f"bench_scan: no Triton kernels: {reason}")
    torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32, for every contender
    torch.backends.cudnn.allow_tf32 = False
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mambair-bench-") as scratch:
        folder = None
        if arguments.build_official:
            folder = Path(scratch)
            build_kernel(folder)
        kernel, official = find_kernel(folder)
        print(official, file=sys.stderr)
        floor = Floor(1e12, 1e12) if arguments.rehearse else measured_floor()
        about = environment(official, floor, device)
        dtypes = [d for d in arguments.dtype if d in DTYPES]
        whole = not (arguments.cases or arguments.networks)
        for name in sorted(CASES) if whole else arguments.cases:
            case = replace(CASES[name], B=1, H=6, W=8) if arguments.rehearse else CASES[name]
            for dtype in dtypes:
                measured = measure_case(name, case, dtype, kernel, floor, arguments, device, (ours, "torch"))
                rows += measured
                print("\n".join(lines(measured)), flush=True)
            written = write_results(arguments.output, about, rows)  # after each case: a stop loses little
        backends = [ours, "torch", *(["mamba_ssm"] if mamba_ssm.why_not() is None else [])]
        tiny = {"side": 16, "training": (1, 8)} if arguments.rehearse else {}
        for network in TRAINING if whole else arguments.networks:
            for dtype in dtypes:
                measured = network_rows(network, dtype, backends, arguments, device, **tiny)
                rows += measured
                print("\n".join(lines(measured)), flush=True)
            written = write_results(arguments.output, about, rows)
        print(written)
    return 0
