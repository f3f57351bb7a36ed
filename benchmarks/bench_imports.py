"""Time of ``import mambair`` and of ``--help`` of every command, each in fresh interpreters.

python benchmarks/bench_imports.py [--repeats 7]

Wanted: ``import mambair`` under 0.2 s on top of ``import torch``, ``--help`` under 0.5 s.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND_FOLDERS = ("mambair", "inference", "scripts", "benchmarks")
WANTED_IMPORT = 0.2
WANTED_HELP = 0.5

# seconds that a statement takes when torch is there already
ON_TOP_OF_TORCH = """
import sys, time
sys.path.insert(0, REPOSITORY)
import torch
began = time.perf_counter()
STATEMENT
print(time.perf_counter() - began)
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if a command's --help fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="the best of this many runs counts (default: 7)")
    repeats = parser.parse_args(arguments).repeats
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, {machine}; best of {repeats}; {time.strftime('%Y-%m-%d')}\n")
    print(f"{'on top of torch':44}  seconds  wanted")
    for statement in ("import mambair", "import mambair.ops", "import mambair.archs"):
        wanted = f"< {WANTED_IMPORT}" if statement == "import mambair" else "-"
        print(f"{statement:44}  {on_top_of_torch(statement, repeats):7.3f}  {wanted}")
    print(f"\n{'--help of':44}  seconds  wanted")
    print(f"{'(python -c pass)':44}  {seconds_of(['-c', 'pass'], repeats):7.3f}  -")
    failed = False
    for command in commands():
        try:
            print(f"{command:44}  {seconds_of([str(REPOSITORY / command), '--help'], repeats):7.3f}  < {WANTED_HELP}")
        except subprocess.CalledProcessError as error:
            failed = True
            print(f"{command:44}  fails with exit code {error.returncode}")
    return int(failed)


def commands() -> list[str]:
    """Every file that is meant to be run, relative to the repository."""
    return [
        str(path.relative_to(REPOSITORY))
        for folder in COMMAND_FOLDERS
        for path in sorted((REPOSITORY / folder).glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


def on_top_of_torch(statement: str, repeats: int) -> float:
    """Seconds of an import, torch imported before, as the interpreter itself counts them."""
    code = ON_TOP_OF_TORCH.replace("STATEMENT", statement).replace("REPOSITORY", repr(str(REPOSITORY)))
    times = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    return min(times)


def seconds_of(arguments: list[str], repeats: int) -> float:
    """Seconds from the start of an interpreter to its end.

    Raises:
        subprocess.CalledProcessError: it ended with another exit code than 0.
    """
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
