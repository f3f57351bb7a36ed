"""Time of MATLAB's bicubic reduction of a 2K image: ours against basicsr's, after both were found to agree.

python benchmarks/bench_imresize.py [--repeats 7] [--size 1356x2040]
"""

from __future__ import annotations

import argparse
import os
import platform
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
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many runs counts (default: 7)")
    parser.add_argument("--size", default="1356x2040", help="height x width of the image (default: 1356x2040)")
    options = parser.parse_args(arguments)
    height, width = (int(number) for number in options.size.split("x"))
    return compare(height, width, options.repeats)


def compare(height: int, width: int, repeats: int) -> int:
    """Check and time every scale on a random image."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import numpy as np
    import torch

    from mambair.data.imresize import imresize
    from mambair.registry import basicsr_installed, import_basicsr

    if not basicsr_installed():
        print("basicsr is not installed: nothing to compare with")
        return 2
    import_basicsr()
    from basicsr.utils.matlab_functions import imresize as imresize_of_basicsr

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    as_float = (image / 255).astype(np.float32)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"{height} x {width} RGB, best of {repeats}; {machine}")
    print(f"numpy {np.__version__}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    print("scale  ours uint8  ours float32  basicsr float32  faster")
    for scale in SCALES:
        difference = np.abs(imresize(as_float, 1 / scale) - imresize_of_basicsr(as_float, 1 / scale)).max()
        if difference > AGREEMENT:
            print(f"1/{scale}: ours and basicsr's differ by {difference:.1e} (allowed {AGREEMENT:.0e}); not timed")
            return 1
        ours = best(lambda scale=scale: imresize(image, 1 / scale), repeats)
        ours_float = best(lambda scale=scale: imresize(as_float, 1 / scale), repeats)
        theirs = best(lambda scale=scale: imresize_of_basicsr(as_float, 1 / scale), repeats)
        print(
            f"1/{scale}    {ours * 1e3:7.1f} ms    {ours_float * 1e3:7.1f} ms       {theirs * 1e3:7.1f} ms    "
            f"{theirs / ours:.1f}x"
        )
    return 0


def best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
