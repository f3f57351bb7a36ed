"""Our networks in spandrel, the loader of ComfyUI and chaiNNer: after ``install()`` its ``ModelLoader`` knows them.

The one module of the package that imports spandrel (https://github.com/chaiNNer-org/spandrel). Files are recognised and
built as by ``mambair.load``, with one difference: spandrel reads tensors only, so what metadata alone can tell
(``img_range``, ``routing``) has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mambair.archs import detectors
from mambair.weights.checkpoint import Checkpoint, unwrapped_names
from mambair.weights.loading import build_empty, fill
from mambair.weights.recognition import recognise

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchRegistry,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
    )
except ImportError as error:
    raise ImportError(f'mambair.weights.spandrel needs spandrel ({error}): pip install "mambair[spandrel]"') from error

# The multiple to which a network mirrors its image just as spandrel does. Those with windows repeat the edge when they
# pad, which spandrel does not: they get the image as it is.
MULTIPLE_OF = {"MambaIR": 1, "MambaIRv2": 1, "MambaIRv2Light": 1, "MambaIRUNet": 8}


def install(registry: ArchRegistry | None = None) -> list[str]:
    """Add MambaIR, MambaIRv2, MambaIRv2Light and MambaIRUNet to a registry of spandrel; those it has are left alone.

    Args:
        registry: where to; None is spandrel's main registry, which every ``ModelLoader`` uses unless told otherwise.

    Returns:
        The names that were added: all at the first call, none at the next.
    """
    supports = [ArchSupport.from_architecture(MambaIRArchitecture(arch)) for arch in MULTIPLE_OF]
    added = (MAIN_REGISTRY if registry is None else registry).add(*supports, ignore_duplicates=True)
    return [support.architecture.id for support in added]


class MambaIRArchitecture(Architecture[nn.Module]):
    """One of our networks as spandrel asks about it.

    Args:
        arch: its registered name, a key of ``MULTIPLE_OF``; also its id in spandrel.
    """

    def __init__(self, arch: str) -> None:
        super().__init__(id=arch, detect=self._recognises)

    def _recognises(self, state_dict: Mapping[str, Any]) -> bool:
        found = detectors.detect(_tensors(state_dict))
        return found is not None and found[0] == self.id

    def load(self, state_dict: Mapping[str, Any]) -> ImageModelDescriptor[nn.Module]:
        """The network with these weights, in eval mode and float32, and what spandrel's users need to know of it.

        Raises:
            CheckpointError: the weights belong to no network of ours, or do not fit the one they look like.
        """
        weights = {name: tensor.detach().clone() for name, tensor in _tensors(state_dict).items()}
        checkpoint = Checkpoint(weights, {}, "the state dict")
        arch, kwargs = recognise(checkpoint)
        net: Any = fill(build_empty(checkpoint, arch, kwargs), checkpoint, arch, kwargs).eval()
        return ImageModelDescriptor(
            net,
            net.state_dict(),
            architecture=self,
            purpose="SR" if net.upscale > 1 else "Restoration",
            tags=_tags(kwargs),
            supports_half=True,  # the scan keeps its parameters and states in float32 whatever the weights are
            supports_bfloat16=True,
            scale=net.upscale,
            input_channels=net.in_chans,
            output_channels=net.in_chans,
            size_requirements=_size_requirements(arch, kwargs),
            tiling=ModelTiling.SUPPORTED,  # the published results were computed in tiles, too
        )


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Only the tensors, under the network's own names: spandrel asks about files of every kind."""
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    return {own: tensors[name] for name, own in unwrapped_names(tensors).items()}


def _tags(kwargs: Mapping[str, Any]) -> list[str]:
    """The size of a network in words, as other architectures of spandrel say it: "48dim", "24blocks"."""
    if "num_blocks" in kwargs:
        return [f"{kwargs['dim']}dim", f"{sum(kwargs['num_blocks'])}blocks"]
    return [f"{kwargs['embed_dim']}dim", f"{sum(kwargs['depths'])}blocks"]


def _size_requirements(arch: str, kwargs: Mapping[str, Any]) -> SizeRequirements:
    if kwargs.get("ape"):  # one size only
        return SizeRequirements(minimum=kwargs["img_size"], square=True)
    return SizeRequirements(multiple_of=MULTIPLE_OF[arch])
