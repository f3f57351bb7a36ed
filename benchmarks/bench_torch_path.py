"""Time of the pure-torch path of ss2d_scan against a loop over the tokens, which is what one writes without a kernel.

    python benchmarks/bench_torch_path.py [--repeat 9] [--threads 1] [--case "light 64x64"]

The contenders must agree first, then run in turns; a line gives the least time of each and their ratio.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# name: height, width, channels, states, rank
CASES = {
    "light 64x64": (64, 64, 72, 10, 4),
    "light 32x32": (32, 32, 72, 10, 4),
    "classic 32x32": (32, 32, 360, 16, 12),
}


def make_inputs(height: int, width: int, channels: int, states: int, rank: int) -> tuple[Tensor, ...]:
    """x, projection, dt_weight, dt_bias, A, D as in a network at the start of training."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    A = -torch.arange(1.0, states + 1).expand(4, channels, states).contiguous()
    weight, bias = random(4, channels, rank) * rank**-0.5, random(4, channels) - 4.0
    projection = random(1, height, width, 4, rank + 2 * states)
    return random(1, height, width, channels), projection, weight, bias, A, torch.ones(4, channels)


def token_loop(x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor) -> Tensor:
    """Four copies of the image, all decays and drives in memory, then one step for each token.

    The steps are those of mamba_ssm's published reference; taking the tokens apart beforehand (unbind instead of an
    index in every step) keeps the loop's backward from being quadratic in the tokens.
    """
    import torch
    import torch.nn.functional as F

    height, width = x.shape[1:3]
    rank, states = dt_weight.shape[2], A.shape[2]

    def four_orders(image: Tensor) -> Tensor:  # [B, 4, P, L]
        rows = torch.stack([image.flatten(1, 2), image.transpose(1, 2).flatten(1, 2)], dim=1)
        return torch.cat([rows, rows.flip(2)], dim=1).transpose(2, 3)

    u = four_orders(x)
    packed = torch.stack([four_orders(projection[:, :, :, k])[:, k] for k in range(4)], dim=1)
    dt, B, C = packed.split([rank, states, states], dim=2)
    delta = F.softplus(torch.einsum("bkrl,kdr->bkdl", dt, dt_weight) + dt_bias.unsqueeze(-1))
    decay = torch.exp(torch.einsum("bkdl,kdn->bkdln", delta, A))
    drive = torch.einsum("bkdl,bknl,bkdl->bkdln", delta, B, u)
    state, outputs = torch.zeros_like(decay[:, :, :, 0]), []
    for a, b, c in zip(decay.unbind(3), drive.unbind(3), C.unbind(3), strict=True):
        state = a * state + b
        outputs.append(torch.einsum("bkdn,bkn->bkd", state, c))
    y = torch.stack(outputs, dim=-1) + u * D.unsqueeze(-1)
    both = y[:, :2] + y[:, 2:].flip(-1)
    across = both[:, 1].unflatten(-1, (width, height)).transpose(-1, -2)
    return (both[:, 0].unflatten(-1, (height, width)) + across).permute(0, 2, 3, 1)


def least_times(contenders: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Seconds of the fastest of ``repeat`` rounds, the contenders taking turns after one round to warm up."""
    least = dict.fromkeys(contenders, float("inf"))
    for round_ in range(repeat + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if round_:
                least[name] = min(least[name], time.perf_counter() - start)
    return least


def run_case(name: str, repeat: int) -> None:
    import torch

    from mambair.ops import chunked

    inputs = make_inputs(*CASES[name])
    with torch.no_grad():
        error = (chunked.ss2d_scan(*inputs) - token_loop(*inputs)).abs().max().item()
        if error > 1e-4:
            sys.exit(f"{name}: the two differ by {error:.1e}; not timed")
        forward = least_times(
            {"loop": lambda: token_loop(*inputs), "torch path": lambda: chunked.ss2d_scan(*inputs)}, repeat
        )
    leaves = [t.requires_grad_() for t in inputs]
    training = least_times(
        {
            "loop": lambda: torch.autograd.grad(token_loop(*leaves).sum(), leaves),
            "torch path": lambda: torch.autograd.grad(chunked.ss2d_scan(*leaves).sum(), leaves),
        },
        max(1, repeat // 3),
    )
    for what, times in (("forward", forward), ("forward and backward", training)):
        ratio = times["loop"] / times["torch path"]
        shown = "   ".join(f"{who} {seconds * 1e3:8.1f} ms" for who, seconds in times.items())
        print(f"{name:<14} {what:<21} {shown}   x{ratio:.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9, help="timed rounds of the forward pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), least of {options.repeat} rounds in turns, batch 1")
    for name in options.case or CASES:
        run_case(name, options.repeat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
