"""``python -m mambair.ops``: which backends of the scans are there, which one is chosen, why the others declined."""

from __future__ import annotations

import argparse
import sys

from mambair.system.exit_codes import ends_in_order


@ends_in_order()
def main(arguments: list[str] | None = None) -> int:
    """Print the table of backends for the devices of this machine; 2 when the forced backend cannot run on the CPU."""
    parser = argparse.ArgumentParser(
        prog="python -m mambair.ops",
        description="Show the backends of the scans and why each is used or not; 'mambair doctor' shows more.",
    )
    parser.parse_args(arguments)
    import torch

    from mambair.ops.report import TITLES, backend_rows, forced
    from mambair.system.errors import RequestError

    print(f"torch {torch.__version__}, CUDA {'available' if torch.cuda.is_available() else 'not available'}")
    for name, value in forced().items():
        print(f"{name}={value}")
    for device, title in TITLES.items():
        print(f"\n{title}")
        try:
            rows = backend_rows(device)
        except RequestError as error:
            print(f"  {error}")
            if device == "cpu":
                return 2
            continue
        for name, verdict in rows.items():
            print(f"  {name:<10} {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
