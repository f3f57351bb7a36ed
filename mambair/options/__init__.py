"""Option files: read safely, checked completely before anything starts, every fault named with file and line."""

from __future__ import annotations

from mambair.options.errors import OptionsError
from mambair.options.reader import load_options

__all__ = ["OptionsError", "load_options"]
