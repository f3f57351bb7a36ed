"""Perceptual and style losses on VGG19 features (Johnson et al., ECCV 2016), in BasicSR's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from mambair.registry import LOSS_REGISTRY
from mambair.weights.checkpoint import CheckpointError, read_checkpoint
from mambair.weights.fetch import cache_folder

# convolutions of VGG19 in its five blocks; between blocks stands a 2 x 2 max pooling (Simonyan & Zisserman, 2015)
VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
VGG19_FILE = "vgg19-dcbb9e9d.pth"
VGG19_NAME = "vgg19"
HOW_TO_GET = (
    "PerceptualLoss needs VGG19's weights in torchvision's form: download "
    f"https://download.pytorch.org/models/{VGG19_FILE} and put it there, or write weights: and its path"
)
CRITERIA: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda difference: difference.abs().mean(),
    "l2": lambda difference: difference.square().mean(),
    "fro": lambda difference: torch.linalg.vector_norm(difference),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """The features of VGG19 before their ReLU, under the names BasicSR uses: conv1_1 ... conv5_4.

    Args:
        wanted: names of the features to return; layers after the last one are not built.

    Raises:
        ValueError: a name that does not exist.
    """

    def __init__(self, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self.wanted = frozenset(wanted)
        layers: dict[str, nn.Module] = {}
        channels, self.names = 3, {}
        for block, (width, count) in enumerate(VGG19_BLOCKS, 1):
            for number in range(1, count + 1):
                self.names[str(len(layers))] = f"conv{block}_{number}"
                layers[str(len(layers))] = nn.Conv2d(channels, width, 3, padding=1)
                layers[str(len(layers))] = nn.ReLU()
                channels = width
            layers[str(len(layers))] = nn.MaxPool2d(2)
        known = list(self.names.values())
        if not self.wanted or not self.wanted <= set(known):
            raise ValueError(f"layer_weights must name layers of {', '.join(known)}; found {', '.join(wanted)}")
        last = max(int(number) for number, name in self.names.items() if name in self.wanted)
        self.features = nn.ModuleDict({number: layer for number, layer in layers.items() if int(number) <= last})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W], normalised -> {name: [B, C, H / 2^n, W / 2^n]}."""
        found = {}
        for number, layer in self.features.items():
            image = layer(image)
            name = self.names.get(number)
            if name in self.wanted:
                found[name] = image
        return found


def find_vgg19() -> Path:
    """VGG19's weights in torch's cache, where any program that uses torchvision's has put them, or in our own.

    Raises:
        CheckpointError: they are in neither; the message says how to get them.
    """
    folders = (Path(torch.hub.get_dir()) / "checkpoints", cache_folder())
    found = next((folder / VGG19_FILE for folder in folders if (folder / VGG19_FILE).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folders[0] / VGG19_FILE}: no such file, nor in {folders[1]}; {HOW_TO_GET}")
    return found


@LOSS_REGISTRY.register()
class PerceptualLoss(nn.Module):
    """L1 distance of VGG19 features and, with ``style_weight``, of their Gram matrices.

    The weights of VGG19 are not part of this package and are not downloaded by this class.

    Args:
        layer_weights: {"conv5_4": 1.0, ...}.
        weights: path of VGG19's weights as torchvision publishes them (``features.0.weight`` ...); "vgg19" and the
            default find them, see `find_vgg19`.
        perceptual_weight: factor of the features' distance.
        style_weight: factor of the Gram matrices' distance.
        use_input_norm: shift and scale by ImageNet's mean and standard deviation.
        range_norm: the images are in [-1, 1].
        vgg_type: BasicSR's name of the network; "vgg19".
        criterion: distance of features: "l1" (mean of absolute differences), "l2" (mean of squares), "fro" (root of
            the sum of squares).

    Raises:
        ValueError: an unknown layer, network or criterion, or both factors zero.
        CheckpointError: weights that are missing, damaged or not VGG19's.
    """

    reduction = "mean"

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        weights: str | Path | None = None,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        use_input_norm: bool = True,
        range_norm: bool = False,
        vgg_type: str = "vgg19",
        criterion: Literal["l1", "l2", "fro"] = "l1",
    ) -> None:
        super().__init__()
        if vgg_type != "vgg19":
            raise ValueError(f"vgg_type must be vgg19, got {vgg_type!r}")
        if criterion not in CRITERIA:
            raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
        self._distance = CRITERIA[criterion]
        if perceptual_weight <= 0 and style_weight <= 0:
            raise ValueError("perceptual_weight and style_weight are both zero: this loss would do nothing")
        self.layer_weights = dict(layer_weights)
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        self.use_input_norm, self.range_norm = use_input_norm, range_norm
        self.vgg = VGGFeatures(tuple(layer_weights))
        self._load(weights)
        self.vgg.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def _load(self, weights: str | Path | None) -> None:
        weights = find_vgg19() if weights in (None, VGG19_NAME) else Path(str(weights))
        if not weights.is_file():
            raise CheckpointError(f"{weights}: no such file; {HOW_TO_GET}")
        found, own = read_checkpoint(weights).state_dict, self.vgg.state_dict()
        wrong = [name for name, value in own.items() if name not in found or found[name].shape != value.shape]
        if wrong:
            raise CheckpointError(f"{weights} is not VGG19: {', '.join(wrong[:4])} missing or of another shape")
        self.vgg.load_state_dict({name: found[name] for name in own})

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare RGB images [B, 3, H, W] in [0, 1]; returns a scalar."""
        ours = self.vgg(self._normalised(prediction))
        with torch.no_grad():
            theirs = self.vgg(self._normalised(target))
        total = prediction.new_zeros(())
        for name, weight in self.layer_weights.items():
            if self.perceptual_weight > 0:
                distance = self._distance(ours[name] - theirs[name])
                total = total + self.perceptual_weight * weight * distance
            if self.style_weight > 0:
                distance = self._distance(gram_matrix(ours[name]) - gram_matrix(theirs[name]))
                total = total + self.style_weight * weight * distance
        return total

    def _normalised(self, image: Tensor) -> Tensor:
        image = (image + 1) / 2 if self.range_norm else image
        return (image - self.mean) / self.std if self.use_input_norm else image


def gram_matrix(features: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, C]: products of channels, averaged over C x H x W as BasicSR does."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()
