"""A teacher: a trained network whose output is one more target (Hinton et al., 2015), without features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs import build
from mambair.losses import build_loss
from mambair.models.start_weights import read_start_weights
from mambair.options.errors import SettingError, made_of
from mambair.registry import arguments_of
from mambair.weights.checkpoint import load_weights
from mambair.weights.loading import load

logger = logging.getLogger(__name__)


class Teacher(nn.Module):
    """The loss between a network's output and that of a frozen teacher.

    Args:
        opt: checked options. ``path: pretrain_network_g_teacher`` names its weights, ``network_g_teacher`` its class
            and arguments (without that, the weights are recognised), ``train: teacher_opt`` the loss.

    Raises:
        SettingError: weights that cannot be read, or a teacher of another scale.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = _trained(opt).eval().requires_grad_(False)
        scale = getattr(self.net, "upscale", opt["scale"])
        if scale != opt["scale"]:
            raise SettingError(
                ("path", "pretrain_network_g_teacher"), f"the teacher enlarges {scale} times; scale is {opt['scale']}"
            )
        with made_of("train", "teacher_opt"):
            self.criterion = build_loss(opt["train"]["teacher_opt"])
        count = sum(weight.numel() for weight in self.net.parameters())
        logger.info("%s with %s parameters as teacher", type(self.net).__name__, f"{count:,}")

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, output: Tensor, lq: Tensor) -> Tensor:
        """The loss of ``output`` [B, C, H, W] against the teacher's output for ``lq`` [B, C, h, w]."""
        with torch.no_grad():
            target = self.net(lq).float()
        return self.criterion(output, target)


def _trained(opt: Mapping[str, Any]) -> nn.Module:
    block = opt.get("network_g_teacher")
    if block is None:
        with made_of("path", "pretrain_network_g_teacher"):
            return load(opt["path"]["pretrain_network_g_teacher"])
    with made_of("network_g_teacher"):
        net = build(block["type"], arguments_of(block))
    checkpoint = read_start_weights(opt, None, "g_teacher")
    assert checkpoint is not None, "the options were checked: a teacher has weights"
    with made_of("path", "pretrain_network_g_teacher"):
        load_weights(net, checkpoint.state_dict)
    return net
