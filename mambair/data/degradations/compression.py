"""Compression as a degradation: real JPEG, WebP and AVIF through Pillow, and JPEG's arithmetic on any device.

Source of the tables and the transform: ITU-T T.81, annexes A and K; of the scaling by quality: libjpeg.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from mambair.images.lazy_image import Pixels, to_uint8

Codec = Literal["jpeg", "webp", "avif"]
CODECS: tuple[str, ...] = get_args(Codec)
Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]
SUBSAMPLINGS: tuple[str, ...] = get_args(Subsampling)

# (vertical, horizontal) pixels that share one value of colour
_SHARED = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
# table K.1 (brightness) and the upper left of table K.2 (colour; 99 everywhere else)
_BRIGHTNESS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@dataclass(frozen=True)
class Compression:
    """Compression of one image.

    Attributes:
        codec: one of ``CODECS``.
        quality: 1 to 100, as Pillow's encoders count.
        subsampling: of the colour, one of ``SUBSAMPLINGS``; WebP always has ``4:2:0``.
    """

    codec: str
    quality: int
    subsampling: str

    def __str__(self) -> str:
        return f"{self.codec} quality {self.quality}" + ("" if self.codec == "webp" else f" {self.subsampling}")


def compressed(pixels: Pixels, quality: int, subsampling: str, codec: str = "jpeg") -> Pixels:
    """Pixels [H, W, 1 or 3] after compression by Pillow, as uint8.

    Args:
        pixels: of any image dtype; other than 8 bits are rounded to 8 first.
        quality: 1 to 100, as libjpeg (and MATLAB) counts.
        subsampling: of the colour: ``4:2:0``, ``4:2:2`` or ``4:4:4``; without meaning for grey.
        codec: ``jpeg``, ``webp`` or ``avif``.
    """
    is_grey = pixels.shape[2] == 1
    stored = to_uint8(pixels)
    picture = Image.fromarray(np.ascontiguousarray(stored[:, :, 0] if is_grey else stored))
    stream, options = io.BytesIO(), dict[str, Any](quality=quality)
    if codec == "avif":
        options |= {"speed": 8, "max_threads": 1}  # a result that depends on the picture alone
    if codec != "webp" and not is_grey:
        options["subsampling"] = subsampling
    picture.save(stream, codec, **options)
    decoded = np.array(Image.open(stream, formats=(codec,)).convert("L" if is_grey else "RGB"))
    return decoded[:, :, None] if is_grey else decoded


def compress(images: Tensor, steps: Sequence[Compression]) -> Tensor:
    """Compress each image with Pillow, which is done on the CPU.

    Args:
        images: [B, 1 or 3, H, W], float; clipped to [0, 1] and rounded to 8 bits first.
        steps: B of them.

    Returns:
        [B, C, H, W] in [0, 1], on the device of ``images``.
    """
    pixels = images.detach().permute(0, 2, 3, 1).cpu().numpy()
    decoded = [
        compressed(image, step.quality, step.subsampling, step.codec) for image, step in zip(pixels, steps, strict=True)
    ]
    return (torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255).contiguous().to(images.device)


def compress_on_device(images: Tensor, steps: Sequence[Compression]) -> Tensor:
    """Compress each image on its device: JPEG by `jpeg_arithmetic`, other codecs as `compress` does.

    Arguments and result as in `compress`; all ``steps`` have one subsampling.
    """
    result = torch.empty_like(images)
    for is_jpeg in (True, False):
        members = [index for index, step in enumerate(steps) if (step.codec == "jpeg") is is_jpeg]
        if members:
            chosen = [steps[index] for index in members]
            qualities = [step.quality for step in chosen]
            part = images[members]
            result[members] = (
                jpeg_arithmetic(part, qualities, chosen[0].subsampling) if is_jpeg else compress(part, chosen)
            )
    return result


def jpeg_arithmetic(images: Tensor, qualities: Sequence[int], subsampling: str = "4:2:0") -> Tensor:
    """The pixels of a JPEG file without the file: colour transform, DCT of 8 x 8 pixels, quantisation, and back.

    libjpeg differs in the last bits, as its transforms are of whole numbers.

    Args:
        images: [B, 1 or 3, H, W], float; clipped to [0, 1] and rounded to 8 bits first.
        qualities: B numbers from 1 to 100.
        subsampling: of the colour, one of ``SUBSAMPLINGS``.

    Returns:
        [B, C, H, W], whole grey levels in [0, 1].
    """
    height, width = images.shape[-2:]
    levels = (images.clamp(0, 1) * 255).round()
    tables = torch.from_numpy(np.stack([quantisation_tables(quality) for quality in qualities])).to(images)
    down, across = _SHARED[subsampling] if images.shape[1] == 3 else (1, 1)
    padded = pad(levels, (0, -width % (8 * across), 0, -height % (8 * down)), mode="replicate")
    if images.shape[1] == 1:
        result = _quantised(padded - 128, tables[:, 0]) + 128
    else:
        planes = torch.einsum("ij,bjhw->bihw", padded.new_tensor(_TO_YCC), padded).round()
        brightness = _quantised(planes[:, :1] - 128, tables[:, 0]) + 128
        colour = _quantised(avg_pool2d(planes[:, 1:], (down, across)).round(), tables[:, 1])
        colour = interpolate(colour, size=padded.shape[-2:], mode="bilinear")
        result = torch.einsum("ij,bjhw->bihw", padded.new_tensor(_TO_RGB), torch.cat([brightness, colour], 1))
    return result[..., :height, :width].round().clamp(0, 255) / 255


@lru_cache(maxsize=100)
def quantisation_tables(quality: int) -> np.ndarray:
    """The tables of brightness and colour [2, 8, 8] that libjpeg uses for a quality from 1 to 100."""
    colour = np.full((8, 8), 99)
    colour[:4, :4] = _COLOUR
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.stack([np.array(_BRIGHTNESS), colour]) * percent + 50) // 100, 1, 255)


def _quantised(planes: Tensor, tables: Tensor) -> Tensor:
    """Planes [B, C, H, W], H and W multiples of 8, after DCT, rounding by tables [B, 8, 8], and the inverse DCT."""
    batch, channels, height, width = planes.shape
    transform = _dct().to(planes)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = tables.view(batch, 1, 1, 1, 8, 8)
    coefficients = (transform @ blocks @ transform.T / steps).round() * steps
    restored = transform.T @ coefficients @ transform
    return restored.transpose(3, 4).reshape(planes.shape).round().clamp(-128, 127)


@lru_cache(maxsize=1)
def _dct() -> Tensor:
    """The orthonormal DCT-II of 8 points, [frequency, point]."""
    frequency, point = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(frequency * (2 * point + 1) * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
