"""What every full-reference measure does first: check the pair, bring it to planes, crop the border, take luma.

The conventions are BasicSR's: BGR order, values in [0, 255], luma of ITU-R BT.601 in [16, 235] without rounding.
"""

from __future__ import annotations

import numpy as np

# BT.601 luma of B, G, R in [0, 1], as MATLAB's rgb2ycbcr has it; the offset is 16 of 255
LUMA_OF_BGR = (24.966, 128.553, 65.481)
LUMA_OFFSET = 16.0
STRIP = 16  # rows converted together, so that the temporaries stay in the cache

PEAK_OF_DTYPE = {"uint8": 255.0, "uint16": 65535.0, "float16": 255.0, "float32": 255.0, "float64": 255.0}


def peak_value(img: np.ndarray, img2: np.ndarray, data_range: float | None) -> float:
    """The largest possible value: ``data_range``, else 255 (uint8, float) or 65535 (uint16).

    Raises:
        ValueError: a dtype without a known range, or the two images have different ones.
    """
    if data_range is not None:
        if data_range <= 0:
            raise ValueError(f"data_range: must be positive, found {data_range}")
        return float(data_range)
    peaks = {}
    for name, image in (("img", img), ("img2", img2)):
        if image.dtype.name not in PEAK_OF_DTYPE:
            raise ValueError(
                f"{name}: dtype must be one of {', '.join(PEAK_OF_DTYPE)}, found {image.dtype}; "
                "convert it, or pass data_range"
            )
        peaks[name] = PEAK_OF_DTYPE[image.dtype.name]
    if peaks["img"] != peaks["img2"]:
        raise ValueError(
            f"img and img2: must have the same range, found {img.dtype} (0..{peaks['img']:g}) and {img2.dtype} "
            f"(0..{peaks['img2']:g}); convert one, or pass data_range"
        )
    return peaks["img"]


def adapt_image(
    image: np.ndarray, *, crop_border: int, input_order: str, test_y_channel: bool, peak: float
) -> np.ndarray:
    """ImageAdapter [C, H, W], cropped; one luma plane if ``test_y_channel`` and the image has three channels.

    Args:
        image: [H, W], or [H, W, C] / [C, H, W] by ``input_order``, in BGR order, 0..peak.
    """
    planes = image[None] if image.ndim == 2 else image
    if image.ndim == 3 and input_order == "HWC":
        planes = image.transpose(2, 0, 1)
    if crop_border:
        planes = planes[:, crop_border:-crop_border, crop_border:-crop_border]
    if test_y_channel and len(planes) == 3:
        planes = luma(planes, peak)[None]
    return planes


def luma(bgr: np.ndarray, peak: float) -> np.ndarray:
    """Luma plane [H, W] of BGR planes [3, H, W], both 0..peak, unrounded."""
    # BasicSR keeps luma in float32, which shows in the sixth digit between nearly equal images; rounding at the same
    # two places makes the published numbers equal to the last digit. 16-bit images need more and have no precedent.
    precision = np.float32 if peak <= 255 else np.float64
    plane = np.empty(bgr.shape[1:], precision)
    for row in range(0, len(plane), STRIP):
        part = np.full(plane[row : row + STRIP].shape, LUMA_OFFSET)
        for channel, weight in zip(bgr, LUMA_OF_BGR, strict=True):
            unit = np.divide(channel[row : row + STRIP], precision(peak), dtype=precision)
            part += np.multiply(unit, weight, dtype=np.float64)
        part /= 255.0
        np.multiply(part.astype(precision), precision(peak), out=plane[row : row + STRIP])
    return plane


def check_pair(img: np.ndarray, img2: np.ndarray, *, crop_border: int, input_order: str, smallest: int) -> None:
    """Refuse a pair that cannot be measured.

    Raises:
        TypeError: an image is no numpy array, or the border no integer.
        ValueError: the shapes differ, are no images, or leave fewer than ``smallest`` pixels a side after the crop.
    """
    for name, image in (("img", img), ("img2", img2)):
        if not isinstance(image, np.ndarray):
            hint = "; pass tensor.cpu().numpy(), in BGR order and [H, W, C]" if hasattr(image, "numpy") else ""
            raise TypeError(f"{name}: must be a numpy array, got {type(image).__name__}{hint}")
    if isinstance(crop_border, bool) or not isinstance(crop_border, int | np.integer):
        raise TypeError(f"crop_border: must be an integer, got {crop_border!r}")
    if input_order not in ("HWC", "CHW"):
        raise ValueError(f"input_order: must be 'HWC' or 'CHW', found {input_order!r}")
    if img.shape != img2.shape:
        raise ValueError(f"img and img2: must have the same shape, found {img.shape} and {img2.shape}")
    if img.ndim not in (2, 3):
        raise ValueError(f"img: must be [H, W] or have three dimensions ({input_order}), found shape {img.shape}")
    if crop_border < 0:
        raise ValueError(f"crop_border: must be 0 or more, found {crop_border}")
    height, width = img.shape[:2] if img.ndim == 2 or input_order == "HWC" else img.shape[1:]
    if min(height, width) - 2 * crop_border < smallest:
        raise ValueError(
            f"img: must keep at least {smallest}x{smallest} pixels after cropping, found {height}x{width} with "
            f"crop_border {crop_border}"
        )
