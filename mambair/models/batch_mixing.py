"""Augmentations that mix the images of a batch, in traiNNer's vocabulary (``use_moa``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

CUTMIX_AREA = (0.1, 0.5)  # share of the image that is replaced
CUTBLUR_SIDE = 0.7  # of the image's side
MIXUP_ALPHA = 1.2  # of the Beta distribution (Yoo et al., CVPR 2020)


class BatchMixing:
    """Apply one randomly drawn augmentation to a batch.

    Random numbers come from torch's global generator, which the training seeds for each iteration.

    Args:
        names: augmentations: ``none``, ``mixup`` (Zhang et al., 2018), ``cutmix`` (Yun et al., 2019), ``cutblur``
            (Yoo et al., 2020).
        probabilities: relative frequency of each; None is equal.

    Raises:
        ValueError: an unknown name, or probabilities that do not fit.
    """

    def __init__(self, names: Sequence[str], probabilities: Sequence[float] | None = None) -> None:
        unknown = [name for name in names if name not in AUGMENTATIONS]
        if unknown or not names:
            raise ValueError(
                f"moa_augs must name some of {', '.join(AUGMENTATIONS)}, got {', '.join(unknown) or 'none'}"
            )
        weights = list(probabilities) if probabilities is not None else [1.0] * len(names)
        if len(weights) != len(names) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"moa_probs must be {len(names)} numbers of 0 or more, not all 0, got {weights}")
        self._names = list(names)
        self._weights = torch.tensor(weights)

    def __call__(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``lq`` [B, C, h, w] and ``gt`` [B, C, H, W] alike; H and W are whole multiples of h and w."""
        name = self._names[int(torch.multinomial(self._weights, 1))]
        return AUGMENTATIONS[name](lq, gt)

    def with_real(self, lq: Tensor, gt: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mix ``lq``, ``gt`` and, as ``gt``, the images that a discriminator takes for real, which may be ``gt``."""
        state = torch.get_rng_state()
        mixed_lq, mixed_gt = self(lq, gt)
        if real is None or real is gt:
            return mixed_lq, mixed_gt, mixed_gt
        torch.set_rng_state(state)
        return mixed_lq, mixed_gt, self(lq, real)[1]


def _mixup(lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    share = float(torch.distributions.Beta(MIXUP_ALPHA, MIXUP_ALPHA).sample())
    order = torch.randperm(len(lq)).to(lq.device)
    return torch.lerp(lq, lq[order], 1 - share), torch.lerp(gt, gt[order], 1 - share)


def _cutmix(lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    side = (CUTMIX_AREA[0] + (CUTMIX_AREA[1] - CUTMIX_AREA[0]) * float(torch.rand(()))) ** 0.5
    order, rows, columns = torch.randperm(len(lq)).to(lq.device), *_square(lq, side)
    scale = gt.shape[-1] // lq.shape[-1]
    lq, gt, other_lq, other_gt = lq.clone(), gt.clone(), lq[order], gt[order]
    lq[..., rows, columns] = other_lq[..., rows, columns]
    rows, columns = _times(rows, scale), _times(columns, scale)
    gt[..., rows, columns] = other_gt[..., rows, columns]
    return lq, gt


def _cutblur(lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Replace a square of the input by the ground truth, or all but that: reduced to the input's size."""
    reduced = functional.interpolate(gt, size=lq.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)
    rows, columns = _square(lq, CUTBLUR_SIDE * (0.3 + 0.7 * float(torch.rand(()))))
    mask = torch.zeros(lq.shape[-2:], dtype=torch.bool, device=lq.device)
    mask[rows, columns] = True
    return torch.where(mask if float(torch.rand(())) < 0.5 else ~mask, reduced, lq), gt


def _square(images: Tensor, side: float) -> tuple[slice, slice]:
    """The rows and columns of a random rectangle with ``side`` times the image's height and width."""
    found = []
    for length in images.shape[-2:]:
        cut = max(1, round(length * side))
        start = int(torch.randint(length - cut + 1, ()))
        found.append(slice(start, start + cut))
    return found[0], found[1]


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "none": lambda lq, gt: (lq, gt),
    "mixup": _mixup,
    "cutmix": _cutmix,
    "cutblur": _cutblur,
}
