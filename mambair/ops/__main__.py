"""``python -m mambair.ops``: which backends of the scans are there, which one is chosen, why the others declined."""

from __future__ import annotations

import argparse
import os
import sys

from mambair.system.exit_codes import ends_in_order


@ends_in_order()
def main(arguments: list[str] | None = None) -> int:
    """Print the table of backends for the devices of this machine; 2 when the forced backend cannot run on the CPU."""
    parser = argparse.ArgumentParser(prog="python -m mambair.ops", description=__doc__)
    parser.parse_args(arguments)
    import torch

    from mambair.ops import backends, native

    print(f"torch {torch.__version__}, CUDA {'available' if torch.cuda.is_available() else 'not available'}")
    forced = os.environ.get(backends.ENVIRONMENT_VARIABLE, "")
    if forced:
        print(f"{backends.ENVIRONMENT_VARIABLE}={forced}")
    for title, device in (("CPU", "cpu"), ("GPU (CUDA)", "cuda")):
        print(f"\n{title}")
        try:
            chosen, reasons = backends.explain(device)
        except backends.BackendError as error:
            print(f"  {error}")
            if device == "cpu":
                return 2
            continue
        for name, reason in reasons.items():
            verdict = "chosen" if name == chosen else f"declined: {reason}" if reason else "would run it too"
            print(f"  {name:<10} {verdict}")
        if chosen == "native":
            print(f"  native library: {native.library_path()}, instruction set {native.isa()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
