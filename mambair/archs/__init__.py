"""Networks for image restoration; importing this package registers them."""

import sys

from mambair.archs.builder import BuildError, build
from mambair.archs.discriminator_arch import Discriminator, UNetDiscriminatorSN, VGGStyleDiscriminator
from mambair.archs.mambair_arch import MambaIR
from mambair.archs.mambair_unet_arch import MambaIRUNet
from mambair.archs.mambairv2_arch import MambaIRv2, MambaIRv2Light
from mambair.archs.vim_sr_arch import VimSR
from mambair.archs.vssm_unet_arch import VSSMUNet
from mambair.registry import ARCH_REGISTRY, connect_basicsr

__all__ = [
    "BuildError",
    "Discriminator",
    "MambaIR",
    "MambaIRUNet",
    "MambaIRv2",
    "MambaIRv2Light",
    "UNetDiscriminatorSN",
    "VGGStyleDiscriminator",
    "VSSMUNet",
    "VimSR",
    "build",
]

if sys.modules.get("basicsr") is not None:
    connect_basicsr(ARCH_REGISTRY)
