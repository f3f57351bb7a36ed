"""Optimisers of the library pytorch-optimizer (extra ``[optimizers]``), imported where an option file names one.

The library is under Apache-2.0; those of its optimisers under other licences are not offered.
"""

from __future__ import annotations

import importlib
from typing import Any

# Adan (Xie et al., 2022), SOAP (Vyas et al., 2024), schedule-free AdamW (Defazio et al., 2024)
LIBRARY = ("Adan", "SOAP", "ScheduleFreeAdamW")
# keep an average of the weights themselves, and need no schedule
AVERAGING = ("ScheduleFreeAdamW",)


class MissingLibraryError(ValueError):
    """pytorch-optimizer is not installed, or lacks an optimiser."""


def library_optimizer(name: str) -> Any:
    """The class of that name.

    Raises:
        MissingLibraryError: the library cannot be imported or is too old.
    """
    try:
        return getattr(importlib.import_module("pytorch_optimizer"), name)
    except (ImportError, AttributeError) as error:
        raise MissingLibraryError(
            f"optimiser {name} needs pytorch-optimizer ({error}); run: pip install 'mambair[optimizers]'"
        ) from None
