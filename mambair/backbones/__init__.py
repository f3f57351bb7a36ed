"""Vision Mamba and VMamba as backbones; importing this package registers them here and, if it is installed, with timm."""

from mambair.backbones.vmamba import Backbone_VSSM, VSSM

__all__ = ["VSSM", "Backbone_VSSM"]
