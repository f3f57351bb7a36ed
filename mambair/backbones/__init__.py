"""Vision Mamba and VMamba as backbones; importing this package registers them here and, where installed, with timm."""

import importlib
import importlib.util
import sys

from mambair.backbones.position_embedding import resize_position_embedding
from mambair.backbones.vim import VisionMamba
from mambair.backbones.vim_parts import create_block
from mambair.backbones.vim_weights import fit_position_embedding
from mambair.backbones.vmamba import VSSM, Backbone_VSSM
from mambair.layers.bidirectional_mamba import BidirectionalMamba, MambaBlock

__all__ = [
    "VSSM",
    "Backbone_VSSM",
    "BidirectionalMamba",
    "MambaBlock",
    "VisionMamba",
    "create_block",
    "fit_position_embedding",
    "resize_position_embedding",
]

# None in sys.modules is Python's way of blocking an import, which find_spec takes for a fault
if sys.modules.get("timm", True) is not None and importlib.util.find_spec("timm") is not None:
    importlib.import_module("mambair.weights.timm_models")  # a layer above: timm asks it for pretrained weights
