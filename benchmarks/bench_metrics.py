"""Time of PSNR and SSIM on a 2K image: ours against basicsr's, after both were found to agree.

python benchmarks/bench_metrics.py [--repeats 7] [--size 1080x2048] [--save benchmarks/results/metrics.md]

Wanted: SSIM at least 5 times as fast as basicsr's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
AGREEMENT = 1e-6
WANTED_FASTER = {"calculate_ssim": 5.0}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if the two disagree, 2 if basicsr is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many runs counts (default: 7)")
    parser.add_argument("--size", default="1080x2048", help="height x width of the image (default: 1080x2048)")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    options = parser.parse_args(arguments)
    height, width = (int(number) for number in options.size.split("x"))
    sys.path.insert(0, str(REPOSITORY))
    return compare(height, width, options.repeats, options.save)


def compare(height: int, width: int, repeats: int, save: Path | None) -> int:
    """Check and time both measures on a random image and the same with noise, in RGB and in luma."""
    import numpy as np

    from mambair import metrics
    from mambair.registry import basicsr_installed, import_basicsr

    if not basicsr_installed():
        print("basicsr is not installed: nothing to compare with")
        return 2
    import_basicsr()
    import basicsr.metrics as basicsr_metrics

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    other = np.clip(np.rint(image + rng.normal(0, 5, image.shape)), 0, 255).astype(np.uint8)
    lines = head(height, width, repeats)
    print("\n".join(lines))
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
            wanted = f"{WANTED_FASTER[name]:.0f}" if name in WANTED_FASTER else "-"
            cells = [name, "Y" if luma else "RGB", f"{fast * 1e3:.0f}", f"{slow * 1e3:.0f}", f"{slow / fast:.1f}"]
            lines.append(f"| {' | '.join(cells)} | {wanted} | {difference:.0e} |")
            print(lines[-1])
    if save:
        write(save, lines)
    return 0


def head(height: int, width: int, repeats: int) -> list[str]:
    """What stands above the rows: the machine and how was measured."""
    import cv2

    from mambair.system.machine import describe_machine

    machine = describe_machine("numpy", "opencv-python", "basicsr")
    return [
        f"{machine}; {height} x {width}, uint8, crop border 4, best of {repeats}, "
        f"OpenCV with {cv2.getNumThreads()} threads.",
        "",
        "| metric | channels | ours, ms | basicsr, ms | times as fast | wanted | difference |",
        "|---|---|---|---|---|---|---|",
    ]


def write(path: Path, lines: list[str]) -> None:
    """The table as a file, at once or not at all."""
    from mambair.system.atomic_file import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
