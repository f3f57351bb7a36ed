"""Networks for image restoration; importing this package registers them."""

import sys

from mambair.archs.mambair_arch import MambaIR
from mambair.registry import ARCH_REGISTRY, connect_basicsr

__all__ = ["MambaIR"]

if sys.modules.get("basicsr") is not None:
    connect_basicsr(ARCH_REGISTRY)
