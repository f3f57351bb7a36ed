"""Images as callers have them (numpy, PIL, torch) and as the restorer works on them: planes, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# the value that stands for 1.0
WHITE: dict[torch.dtype, float] = {
    torch.uint8: 255.0,
    torch.uint16: 65535.0,
    torch.float16: 1.0,
    torch.bfloat16: 1.0,
    torch.float32: 1.0,
    torch.float64: 1.0,
}
# noise may lead out of [0, 1]; values this far out are another scale (0..255) and would give a white picture
_FARTHEST = 16.0
_PIL_KEPT = ("L", "LA", "RGB", "RGBA", "I;16", "F")
_PIL_CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}
_PIL_CONVERTED |= {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "I;16B": "I;16", "I;16L": "I;16"}
_PIL_TRANSPARENT = {"L": "LA", "P": "RGBA", "RGB": "RGBA"}


@dataclass(frozen=True)
class ImageAdapter:
    """An image as the restorer works on it, and the way back to what the caller gave.

    Attributes:
        pixels: [B, C, H, W], a dtype of ``WHITE``.
        finish: turns such a result into the caller's kind of image.
    """

    pixels: Tensor
    finish: Callable[[Tensor], Any]


def adapt_image(image: Any) -> ImageAdapter:
    """A numpy array, PIL image or torch tensor as planes; the rules are those of ``Restorer.__call__``.

    Raises:
        ValueError: an image that breaks them; the message says which and how.
    """
    if isinstance(image, np.ndarray):
        return adapt_numpy(image)
    if isinstance(image, Tensor):
        return _from_torch(image)
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return _from_pil(image)
    raise ValueError(f"image: must be a numpy array, a PIL image or a torch tensor, got {type(image).__name__}")


def _from_torch(image: Tensor) -> ImageAdapter:
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [C, H, W] or [B, C, H, W], got shape {tuple(image.shape)}")
    if image.dtype not in WHITE:
        raise ValueError(f"image: must be float in [0, 1], uint8 or uint16, got {image.dtype}")
    image = image.detach()
    _check_values(image)
    if image.ndim == 3:
        return ImageAdapter(image[None], lambda output: output[0].contiguous())
    return ImageAdapter(image, lambda output: output.contiguous())


def adapt_numpy(image: np.ndarray) -> ImageAdapter:
    """A numpy array [H, W] or [H, W, C] as planes that share its memory where they can.

    Raises:
        ValueError: another shape, dtype or range.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [H, W] or [H, W, C], got shape {image.shape}")
    if image.dtype.name not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise ValueError(f"image: must be uint8, uint16 or float in [0, 1], got {image.dtype}; convert it first")
    # torch shares the memory; it takes native byte order, no negative strides and nothing read-only
    shared = np.require(image, dtype=image.dtype.newbyteorder("="), requirements=["C", "W"])
    pixels = torch.from_numpy(shared if image.ndim == 3 else shared[..., None]).permute(2, 0, 1)[None]
    _check_values(pixels)

    def finish(output: Tensor) -> np.ndarray:
        array = output[0].permute(1, 2, 0).numpy()
        if not array.flags.c_contiguous:
            array = np.stack(list(output[0].numpy()), axis=-1)  # quicker than copying the view
        array = array.astype(image.dtype, copy=False)
        return array if image.ndim == 3 else array[..., 0]

    return ImageAdapter(pixels, finish)


def _from_pil(image: Any) -> ImageAdapter:
    from PIL import Image  # only who hands over a PIL image has it imported already

    mode = _PIL_CONVERTED.get(image.mode, image.mode)
    if "transparency" in image.info:
        mode = _PIL_TRANSPARENT.get(image.mode, mode)
    if mode not in _PIL_KEPT:
        raise ValueError(f"image: PIL mode {image.mode!r} has no fixed range; convert it to one of {_PIL_KEPT}")
    planes = adapt_numpy(np.array(image if image.mode == mode else image.convert(mode)))

    def finish(output: Tensor) -> Any:
        restored = Image.fromarray(planes.finish(output))
        if "icc_profile" in image.info:
            restored.info["icc_profile"] = image.info["icc_profile"]
        return restored

    return ImageAdapter(planes.pixels, finish)


def _check_values(pixels: Tensor) -> None:
    if not pixels.is_floating_point():
        return
    low, high = (float(value) for value in pixels.aminmax())
    if not (low >= -_FARTHEST and high <= _FARTHEST):  # so that NaN is refused too
        raise ValueError(f"image: floats must be finite and in [0, 1], got {low:g} to {high:g}; divide by the maximum")
