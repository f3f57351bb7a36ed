"""Time of PSNR and SSIM on a 2K image: ours against basicsr's, after both were found to agree.

python benchmarks/bench_metrics.py [--repeats 7] [--size 1080x2048]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

AGREEMENT = 1e-6
WANTED_FASTER = {"calculate_ssim": 5.0}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if the two disagree, 2 if basicsr is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many runs counts (default: 7)")
    parser.add_argument("--size", default="1080x2048", help="height x width of the image (default: 1080x2048)")
    options = parser.parse_args(arguments)
    height, width = (int(number) for number in options.size.split("x"))
    return compare(height, width, options.repeats)


def compare(height: int, width: int, repeats: int) -> int:
    """Check and time both measures on a random image and the same with noise, in RGB and in luma."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import numpy as np

    from mambair import metrics
    from mambair.registry import basicsr_installed, import_basicsr

    if not basicsr_installed():
        print("basicsr is not installed: nothing to compare with")
        return 2
    import_basicsr()
    import basicsr.metrics as basicsr_metrics
    import cv2

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    other = np.clip(np.rint(image + rng.normal(0, 5, image.shape)), 0, 255).astype(np.uint8)
    print(f"{height} x {width}, uint8, crop border 4, best of {repeats}; {time.strftime('%Y-%m-%d')}")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"numpy {np.__version__}, OpenCV {cv2.__version__} with {cv2.getNumThreads()} threads\n")
    print("metric          channels      ours   basicsr  faster  wanted")
    for name in ("calculate_psnr", "calculate_ssim"):
        for luma in (False, True):
            ours, theirs = (
                partial(getattr(module, name), image, other, 4, test_y_channel=luma)
                for module in (metrics, basicsr_metrics)
            )
            difference = abs(ours() - theirs())
            if difference > AGREEMENT:
                print(f"{name}: ours and basicsr's differ by {difference:.1e} (allowed {AGREEMENT:.0e}); not timed")
                return 1
            fast, slow = best(ours, repeats), best(theirs, repeats)
            wanted = f"{WANTED_FASTER[name]:5.1f}x" if name in WANTED_FASTER and not luma else "     -"
            print(
                f"{name}  {'Y' if luma else 'RGB':8}  {fast * 1e3:5.0f} ms  {slow * 1e3:5.0f} ms  {slow / fast:5.1f}x  "
                f"{wanted}"
            )
    return 0


def best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
