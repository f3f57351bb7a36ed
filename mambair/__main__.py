"""``python -m mambair`` is the installed command ``mambair``."""

import sys

from mambair.cli import main

sys.exit(main())
