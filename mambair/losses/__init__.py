"""Training losses, registered under BasicSR's names; `build_loss` makes one from an option file's ``*_opt`` block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mambair.losses.frequency_loss import FFTLoss, FocalFrequencyLoss
from mambair.losses.gan_loss import GANLoss
from mambair.losses.learned_loss import DISTSLoss, LPIPSLoss
from mambair.losses.local_loss import ConsistencyLoss, GradientVarianceLoss
from mambair.losses.perceptual_loss import PerceptualLoss
from mambair.losses.pixel_loss import CharbonnierLoss, L1Loss, MSELoss
from mambair.losses.structural_loss import MSSSIML1Loss, MSSSIMLoss, SSIMLoss
from mambair.registry import LOSS_REGISTRY, arguments_of

__all__ = [
    "CharbonnierLoss",
    "ConsistencyLoss",
    "DISTSLoss",
    "FFTLoss",
    "FocalFrequencyLoss",
    "GANLoss",
    "GradientVarianceLoss",
    "L1Loss",
    "LPIPSLoss",
    "MSELoss",
    "MSSSIML1Loss",
    "MSSSIMLoss",
    "PerceptualLoss",
    "SSIMLoss",
    "build_loss",
]


def build_loss(opt: Mapping[str, Any]) -> nn.Module:
    """Build the loss named by ``opt["type"]`` with the other keys as its arguments.

    Raises:
        KeyError: nobody knows that type.
        TypeError: an argument the loss does not have.
    """
    arguments = arguments_of(opt)
    return LOSS_REGISTRY.get(opt["type"])(**arguments)
