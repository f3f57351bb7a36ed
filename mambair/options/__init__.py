"""Option files: read safely, checked completely before anything starts, every fault named with file and line."""

from __future__ import annotations

from mambair.options.errors import OptionsError, SettingError
from mambair.options.reader import load_options, with_place

__all__ = ["OptionsError", "SettingError", "load_options", "with_place"]
