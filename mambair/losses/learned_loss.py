"""LPIPS and DISTS as losses."""

from __future__ import annotations

from torch import Tensor, nn

from mambair.metrics.learned import Backbone, dists_network, lpips_network
from mambair.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class LPIPSLoss(nn.Module):
    """LPIPS (Zhang et al., CVPR 2018) of RGB images in [0, 1].

    Args:
        loss_weight: factor of the result.
        net: network whose features are compared.

    Raises:
        ValueError: an unknown ``net``, or weights that are missing; the message says which file goes where.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0, net: Backbone = "vgg") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.network = lpips_network(net)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, 3, H, W] with [B, 3, H, W]; returns a scalar."""
        return self.loss_weight * self.network(2 * prediction - 1, 2 * target - 1).mean()


@LOSS_REGISTRY.register()
class DISTSLoss(nn.Module):
    """DISTS (Ding et al., TPAMI 2022) of RGB images in [0, 1].

    Args:
        loss_weight: factor of the result.

    Raises:
        ValueError: weights that are missing; the message says which file goes where.
    """

    reduction = "mean"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.network = dists_network()

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare [B, 3, H, W] with [B, 3, H, W]; returns a scalar."""
        return self.loss_weight * self.network(prediction, target, require_grad=True).mean()
