"""Models that train a network against a discriminator, in the vocabulary of BasicSR's SRGANModel and ESRGANModel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs import build
from mambair.losses import build_loss
from mambair.losses.artifact_map import artifact_weights
from mambair.losses.gan_loss import gradient_penalty
from mambair.models.optimizers import build_optimizer
from mambair.models.restoration_model import RestorationModel
from mambair.options.errors import made_of
from mambair.registry import MODEL_REGISTRY, arguments_of
from mambair.weights.checkpoint import network_metadata, write_checkpoint

logger = logging.getLogger(__name__)


@MODEL_REGISTRY.register(name="SRGANModel")
class AdversarialModel(RestorationModel):
    """Trains ``network_g`` with its losses and the judgement of ``network_d``, which learns beside it.

    One iteration: ``network_g`` steps towards lower losses and towards being taken for real; ``network_d`` steps
    towards telling its output from real images. Both use the weights from before the iteration, as BasicSR does. The
    discriminator sees the ground truth as real, or ``gt_gan`` where the data set gives it.

    Args:
        opt: checked options, with ``network_d``, ``train: optim_d`` and ``train: gan_opt``.

    Attributes:
        net_d: the discriminator.
        optimizer_d: its optimiser; the schedule is that of ``network_g``.
    """

    trains_discriminator = True

    def _prepare_training(self, train_opt: Mapping[str, Any], has_average: bool) -> None:
        super()._prepare_training(train_opt, has_average)
        with made_of("network_d"):
            block = self.opt["network_d"]
            self.net_d = build(block["type"], arguments_of(block)).to(self.device).train()
        self._load_pretrained(self.net_d, self.opt["path"].get("param_key_d"), "d")
        count = sum(parameter.numel() for parameter in self.net_d.parameters())
        logger.info("%s with %s parameters as discriminator", type(self.net_d).__name__, f"{count:,}")
        with made_of("train", "gan_opt"):
            self.gan_loss = build_loss(train_opt["gan_opt"]).to(self.device)
        with made_of("train", "ldl_opt"):
            self.artifact_loss = build_loss(train_opt["ldl_opt"]).to(self.device) if train_opt.get("ldl_opt") else None
        with made_of("train", "optim_d"):
            self.optimizer_d = build_optimizer(train_opt["optim_d"], self.net_d)
        self.trained.append((self.optimizer_d, self.net_d))
        self.base_rates += [group["lr"] for group in self.optimizer_d.param_groups]
        self.generator_every = int(train_opt.get("net_d_iters", 1))
        self.generator_from = int(train_opt.get("net_d_init_iters", 0))
        self.penalty_weight = float(train_opt.get("r1_reg_weight", 0.0))
        self.penalty_every = int(train_opt.get("net_d_reg_every", 16))

    def _generator_steps(self, current_iter: int) -> bool:
        return current_iter > self.generator_from and current_iter % self.generator_every == 0

    def _stepping(self, current_iter: int) -> list[tuple[torch.optim.Optimizer, nn.Module]]:
        return self.trained if self._generator_steps(current_iter) else self.trained[1:]

    def _accumulate(self, lq: Tensor, gt: Tensor, real: Tensor, current_iter: int, *, last: bool) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self._generator_steps(current_iter):
            self.net_d.requires_grad_(False)
            losses = super()._accumulate(lq, gt, real, current_iter, last=last)
            self.net_d.requires_grad_(True)
        else:
            with torch.no_grad():
                self.output = self._autocast(self.training_net, lq)
        fake = self.output.detach().float()
        penalise = self.penalty_weight > 0 and current_iter % self.penalty_every == 0
        judged = self._train_discriminator(real, fake)
        judged |= self._penalise(real) if penalise else {}
        return losses | {name: value.detach() / self.accumulation for name, value in judged.items()}

    def _step(self, current_iter: int) -> None:
        self._average_gradients()
        super()._step(current_iter)

    def _average_gradients(self) -> None:
        """Take the mean of the discriminator's gradients over the processes.

        DistributedDataParallel waits for a gradient of every parameter in every backward pass, and the penalty's does
        not reach the last biases.
        """
        gradients = [weight.grad for weight in self.net_d.parameters() if weight.grad is not None]
        if not self.processes.distributed or not gradients:
            return
        means = self.processes.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    # -- the network's side ------------------------------------------------------------------------------------------

    def _losses_of_output(self, output: Tensor, lq: Tensor, gt: Tensor, real: Tensor) -> dict[str, Tensor]:
        losses = super()._losses_of_output(output, lq, gt, real)
        output = output.float()
        if self.artifact_loss is not None:
            weights = artifact_weights(gt, output, self._averaged_output(lq))
            losses["l_g_ldl"] = self.artifact_loss(weights * output, weights * gt) / self.accumulation
        losses["l_g_gan"] = self._deception(output, real) / self.accumulation
        return losses

    def _averaged_output(self, lq: Tensor) -> Tensor:
        assert self.average is not None, "the options were checked: ldl_opt needs ema_decay"
        with torch.no_grad():
            return self._autocast(self.average.net, lq).float()

    def _deception(self, output: Tensor, real: Tensor) -> Tensor:
        """The generator's loss: its output should be taken for real."""
        return self.gan_loss(self._scores(self.net_d, output), True, is_disc=False)

    # -- the discriminator's side ------------------------------------------------------------------------------------

    def _scores(self, net: nn.Module, images: Tensor) -> Tensor:
        return self._autocast(net, images).float()

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.accumulation).backward()

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Add the gradients of telling ``real`` from ``fake``, in two backward passes; returns losses and scores."""
        found: dict[str, Tensor] = {}
        for name, images, is_real in (("real", real, True), ("fake", fake, False)):
            scores = self._scores(self.net_d, images)
            found[f"l_d_{name}"] = self.gan_loss(scores, is_real, is_disc=True)
            found[f"out_d_{name}"] = scores.mean()
            self._backward(found[f"l_d_{name}"])
        return found

    def _penalise(self, real: Tensor) -> dict[str, Tensor]:
        """Add the gradients of R1 regularisation, scaled up for the iterations between, as BasicSR's StyleGAN2 does."""
        images = real.detach().clone().requires_grad_(True)
        penalty = gradient_penalty(self._scores(self.net_d, images), images)
        self._backward(self.penalty_weight / 2 * self.penalty_every * penalty)
        return {"l_d_r1": penalty}

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save_network(self, label: int | str) -> None:
        """Write ``net_g_<label>.pth`` and ``net_d_<label>.pth``; of the best weights only the first."""
        if self.processes.is_main and self.is_train and label != "best":
            block = self.opt["network_d"]
            metadata = network_metadata(block["type"], arguments_of(block), "discriminator")
            path = Path(self.opt["path"]["models"]) / f"net_d_{label}.pth"
            write_checkpoint(path, self.net_d.state_dict(), metadata)
        super().save_network(label)


@MODEL_REGISTRY.register(name="ESRGANModel")
class RelativisticModel(AdversarialModel):
    """As AdversarialModel, with scores relative to the mean of the other kind (Jolicoeur-Martineau, ICLR 2019)."""

    def _deception(self, output: Tensor, real: Tensor) -> Tensor:
        judged_real = self._scores(self.net_d, real).detach()
        judged_fake = self._scores(self.net_d, output)
        as_real = self.gan_loss(judged_real - judged_fake.mean(), False, is_disc=False)
        as_fake = self.gan_loss(judged_fake - judged_real.mean(), True, is_disc=False)
        return (as_real + as_fake) / 2

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        judged_fake = self._scores(self.net_d, fake).detach()
        judged_real = self._scores(self.net_d, real)
        loss_real = self.gan_loss(judged_real - judged_fake.mean(), True, is_disc=True) / 2
        self._backward(loss_real)
        judged_real, judged_fake = judged_real.detach(), self._scores(self.net_d, fake)
        loss_fake = self.gan_loss(judged_fake - judged_real.mean(), False, is_disc=True) / 2
        self._backward(loss_fake)
        return {
            "l_d_real": loss_real,
            "l_d_fake": loss_fake,
            "out_d_real": judged_real.mean(),
            "out_d_fake": judged_fake.mean(),
        }


# names that option files of Real-ESRGAN and HAT have for the same thing: the degradation is the data set's here
for _name in ("RealESRGANModel", "RealHATGANModel"):
    MODEL_REGISTRY.register(AdversarialModel, name=_name)
