"""``python -m mambair`` is the installed command ``mambair``."""

import os
import sys

# python -m looks in the working folder first; its files must not stand in for libraries, unless it is the checkout
CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120, importing pathlib runs them
if not getattr(sys.flags, "safe_path", False) and os.path.realpath(sys.path[0]) != CHECKOUT:
    sys.path.append(sys.path.pop(0))

from mambair.cli import run  # noqa: E402

run()
