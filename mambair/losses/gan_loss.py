"""Losses of adversarial training: what the discriminator's scores cost it, and the network that is judged."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mambair.registry import LOSS_REGISTRY

GAN_TYPES = ("vanilla", "lsgan", "hinge", "wgan", "wgan_softplus")


@LOSS_REGISTRY.register()
class GANLoss(nn.Module):
    """The loss of scores that should say "real" or "fake", with BasicSR's arguments.

    ``vanilla`` is cross-entropy on logits (Goodfellow et al., 2014), ``lsgan`` the squared distance to the label (Mao
    et al., 2017), ``hinge`` that of Lim & Ye (2017), ``wgan`` the plain mean (Arjovsky et al., 2017), ``wgan_softplus``
    its softplus (Karras et al., 2020).

    Args:
        gan_type: one of these five.
        real_label_val: label of real images, for ``vanilla`` and ``lsgan``.
        fake_label_val: label of generated images, for ``vanilla`` and ``lsgan``.
        loss_weight: factor of the generator's loss; the discriminator's has none.

    Raises:
        ValueError: an unknown ``gan_type``.
    """

    reduction = "mean"

    def __init__(
        self,
        gan_type: Literal["vanilla", "lsgan", "hinge", "wgan", "wgan_softplus"],
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if gan_type not in GAN_TYPES:
            raise ValueError(f"gan_type must be one of {', '.join(GAN_TYPES)}, got {gan_type!r}")
        self.gan_type = gan_type
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val
        self.loss_weight = loss_weight

    def forward(self, scores: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """Compute the loss.

        Args:
            scores: the discriminator's output before any sigmoid, of any shape.
            target_is_real: which answer is right, from the point of view of who is trained.
            is_disc: the discriminator is trained, not the generator.

        Returns:
            A scalar, the mean over all scores.
        """
        loss = self._loss(scores, target_is_real, is_disc)
        return loss if is_disc else self.loss_weight * loss

    def _loss(self, scores: Tensor, target_is_real: bool, is_disc: bool) -> Tensor:
        sign = 1.0 if target_is_real else -1.0
        if self.gan_type == "wgan":
            return -sign * scores.mean()
        if self.gan_type == "wgan_softplus":
            return functional.softplus(-sign * scores).mean()
        if self.gan_type == "hinge":
            return functional.relu(1 - sign * scores).mean() if is_disc else -scores.mean()
        label = torch.full_like(scores, self.real_label_val if target_is_real else self.fake_label_val)
        if self.gan_type == "lsgan":
            return functional.mse_loss(scores, label)
        return functional.binary_cross_entropy_with_logits(scores, label)


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """R1 regularisation (Mescheder et al., 2018): the squared gradient of the scores at real images.

    Args:
        scores: the discriminator's output for ``images``.
        images: [B, C, H, W], with ``requires_grad``.

    Returns:
        A scalar: per image the sum over its pixels, averaged over the batch. It can be differentiated.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
