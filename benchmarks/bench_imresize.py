"""Time of MATLAB's bicubic reduction of a 2K image: ours against basicsr's, after both were found to agree.

python benchmarks/bench_imresize.py [--repeats 15] [--size 1356x2040] [--save benchmarks/results/imresize.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

SCALES = (2, 3, 4)
# basicsr computes in float32
AGREEMENT = 1e-6


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if the two disagree, 2 if basicsr is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="the best of this many runs counts (default: 15)")
    parser.add_argument("--size", default="1356x2040", help="height x width of the image (default: 1356x2040)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, for both sides (default: 2)")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    text = compare(options)
    if text is None:
        return 2
    print(text)
    if options.save:
        options.save.write_text(text + "\n", encoding="utf-8")
    return 1 if "differ" in text else 0


def compare(options: argparse.Namespace) -> str | None:
    """The table, after checking every scale on a random image; None without basicsr."""
    import numpy as np
    import torch

    from mambair.images.resize import imresize
    from mambair.registry import basicsr_installed, import_basicsr
    from mambair.system.machine import describe_machine

    if not basicsr_installed():
        print("basicsr is not installed: nothing to compare with", file=sys.stderr)
        return None
    import_basicsr()
    from basicsr.utils.matlab_functions import imresize as imresize_of_basicsr

    torch.set_num_threads(options.threads)
    height, width = (int(number) for number in options.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    as_float = (image / 255).astype(np.float32)
    machine = describe_machine("numpy", "basicsr")
    lines = [f"{machine}; {options.threads} threads, {height} x {width} RGB, best of {options.repeats} in turns.", ""]
    lines += ["| scale | ours, uint8 | ours, float32 | basicsr, float32 | faster, uint8 | faster, float32 |"]
    lines += ["|---|---|---|---|---|---|"]
    for scale in SCALES:
        difference = np.abs(imresize(as_float, 1 / scale) - imresize_of_basicsr(as_float, 1 / scale)).max()
        if difference > AGREEMENT:
            lines.append(f"1/{scale}: ours and basicsr's differ by {difference:.1e}, over {AGREEMENT:.0e}: not timed")
            break
        calls = [
            lambda scale=scale: imresize(image, 1 / scale),
            lambda scale=scale: imresize(as_float, 1 / scale),
            lambda scale=scale: imresize_of_basicsr(as_float, 1 / scale),
        ]
        ours, ours_float, theirs = best_in_turns(calls, options.repeats)
        lines.append(
            f"| 1/{scale} | {ours * 1e3:.1f} ms | {ours_float * 1e3:.1f} ms | {theirs * 1e3:.1f} ms "
            f"| {theirs / ours:.1f}x | {theirs / ours_float:.1f}x |"
        )
    return "\n".join(lines)


def best_in_turns(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of the fastest run of each call, after one that does not count; in turns, as the load may change."""
    times = [float("inf")] * len(calls)
    for number in range(repeats + 1):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if number:
                times[place] = min(times[place], time.perf_counter() - start)
    return times


if __name__ == "__main__":
    sys.exit(main())
