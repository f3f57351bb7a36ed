"""How the memory of a process grows with images of ever new sizes, for several sizes of torch's caches.

    python benchmarks/memory_growth.py [--sizes 400]

Each row is a process of its own that restores images of so many different sizes, 8 to 40 pixels a side, with the
packaged x4 network on a CPU. The first quarter is left out: there the allocator still grows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)

CAPACITIES = (1024, 128, 1)  # the first is the libraries' default
SIDES = range(8, 41)


def main() -> int:
    """Print the table, or with --one the growth in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=200, help=f"how many, at most {len(SIDES) ** 2} (default 200)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(growth(options.sizes))
        return 0
    print("| shapes kept | MiB in the 2nd to 4th quarter | MiB in the last quarter |\n|---:|---:|---:|")
    for capacity in CAPACITIES:
        names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
        environment = {**os.environ, **dict.fromkeys(names, str(capacity))}
        command = [sys.executable, __file__, "--one", "--sizes", str(options.sizes)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        print(f"| {capacity:,} | {done.stdout.strip()} |", flush=True)
    return 0


def growth(sizes: int) -> str:
    """Restore images, and return the two cells of the table."""
    import numpy as np

    from mambair import Restorer
    from mambair.system.process_memory import keep_freed_memory

    keep_freed_memory()
    restorer = Restorer.from_checkpoint(
        REPOSITORY / "mambair" / "weights" / "mambair_small_x4.safetensors", device="cpu"
    )
    shapes = random.Random(0).sample(list(itertools.product(SIDES, SIDES)), sizes)
    quarters = []
    for number, shape in enumerate(shapes, 1):
        restorer(np.zeros((*shape, 3), np.uint8))
        if number % (sizes // 4) == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            quarters.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return f"{quarters[3] - quarters[0]:.1f} | {quarters[3] - quarters[2]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
