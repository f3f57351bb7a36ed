"""Networks of other families (ESRGAN, SwinIR, HAT, DAT, SPAN, ...), which spandrel recognises, as networks of ours."""

from __future__ import annotations

import importlib.util
import sys

import torch
from torch import Tensor, nn

from mambair.system.console import printable
from mambair.system.tables import first_line
from mambair.weights.checkpoint import Checkpoint, CheckpointError


class OtherNetwork(nn.Module):
    """A network that spandrel loaded, with the attributes that a `Restorer` reads.

    Attributes:
        family: spandrel's name of the architecture: "ESRGAN", "SwinIR", ...
        upscale, in_chans: as of our networks.
        tile_multiple: sides of tiles are divisible by it.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``; it pads an image to the sizes its network accepts.
    """

    def __init__(self, descriptor: object) -> None:
        super().__init__()
        self.net: nn.Module = descriptor.model  # type: ignore[attr-defined]
        self.family: str = descriptor.architecture.name  # type: ignore[attr-defined]
        self.upscale: int = descriptor.scale  # type: ignore[attr-defined]
        self.in_chans: int = descriptor.input_channels  # type: ignore[attr-defined]
        self.tile_multiple: int = descriptor.size_requirements.multiple_of  # type: ignore[attr-defined]
        if descriptor.tiling.name == "INTERNAL":  # type: ignore[attr-defined] - it cuts images itself
            self.default_tile = 0
        self._descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] float in [0, 1] to [B, C, H * upscale, W * upscale], without gradients.

        One image at a time, as spandrel asks for; each is a copy, as some networks change their input.
        """
        return torch.cat([self._descriptor(image[None].clone()) for image in x.contiguous()])  # type: ignore[operator]


def spandrel_installed() -> bool:
    """Whether a package named spandrel can be found; it is not imported."""
    return sys.modules.get("spandrel", True) is not None and importlib.util.find_spec("spandrel") is not None


def load_other_family(checkpoint: Checkpoint) -> nn.Module | None:
    """Load weights through spandrel.

    Returns:
        The network on the CPU in eval mode; None where spandrel is not installed or does not know these weights.

    Raises:
        CheckpointError: spandrel fails on them, or the network does not turn one image into another.
    """
    if not spandrel_installed():
        return None
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        descriptor = ModelLoader("cpu").load_from_state_dict(dict(checkpoint.state_dict))
    except UnsupportedModelError:
        return None
    except Exception as error:  # a detector of one of its many architectures
        reason = printable(first_line(error) or type(error).__name__)
        raise CheckpointError(f"{checkpoint.source}: spandrel cannot load these weights: {reason}") from error
    if not isinstance(descriptor, ImageModelDescriptor) or descriptor.input_channels != descriptor.output_channels:
        channels = f"{descriptor.input_channels} channels in and {descriptor.output_channels} out"
        raise CheckpointError(
            f"{checkpoint.source}: a network of {descriptor.architecture.name} with {channels}; only those that turn "
            "an image into one of its kind can be used"
        )
    return OtherNetwork(descriptor.float().eval())
