"""``python -m mambair`` is the installed command ``mambair``."""

from mambair.cli import run

run()
