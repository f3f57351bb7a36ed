"""Building blocks of the networks; each works alone, on any device."""

from mambair.layers.bidirectional_mamba import BidirectionalMamba
from mambair.layers.channel_attention import CAB, ChannelAttention
from mambair.layers.drop_path import DropPath
from mambair.layers.layouts import LayerNorm2d, make_norm
from mambair.layers.ss2d import SS2D
from mambair.layers.tokens import TokenNorm, as_image, as_tokens
from mambair.layers.upsample import Upsample, UpsampleOneStep
from mambair.layers.vmamba_block import MapMlp, PatchMerging2D, VMambaBlock
from mambair.layers.vss_block import VSSBlock

__all__ = [
    "CAB",
    "SS2D",
    "BidirectionalMamba",
    "ChannelAttention",
    "DropPath",
    "LayerNorm2d",
    "MapMlp",
    "PatchMerging2D",
    "TokenNorm",
    "Upsample",
    "UpsampleOneStep",
    "VMambaBlock",
    "VSSBlock",
    "as_image",
    "as_tokens",
    "make_norm",
]
