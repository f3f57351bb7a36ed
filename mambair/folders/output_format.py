"""What the file of a result will hold: mode and depth of its source, as far as the format allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mambair.images.encode import DTYPES_OF_FORMAT, FORMAT_OF_SUFFIX, metadata_beyond
from mambair.images.files import DecodedImage, ImageSpec, check_writable
from mambair.images.metadata import exif_of_size


def spec_of_result(
    image: DecodedImage, size: tuple[int, int], target: Path, quality: int | None = None
) -> tuple[ImageSpec, list[str]]:
    """Mode, depth and metadata of a result of that (height, width): float becomes 16 bit in a PNG, all 8 bit in a JPEG.

    Grey with alpha becomes RGBA in a TIFF of more than 8 bits, which few programs could read otherwise.

    Returns:
        It, and notes on metadata that is left out, as the format has no room for so much.

    Raises:
        ImageFileError: the target's format cannot hold it: transparency in a JPEG, too many pixels in a WebP.
    """
    format = FORMAT_OF_SUFFIX.get(target.suffix.lower(), "")
    holds = DTYPES_OF_FORMAT.get(format, ("uint8",))
    dtype = image.pixels.dtype.name if image.pixels.dtype.name in holds else holds[-1]
    mode, profile = image.mode, image.icc_profile
    if format == "TIFF" and mode == "LA" and dtype != "uint8":
        mode, profile = "RGBA", None
    height, width = size
    spec = ImageSpec(height, width, mode, dtype, profile, exif_of_size(image.exif, height, width), image.xmp, image.dpi)
    beyond = metadata_beyond(spec, format)
    spec = replace(spec, **dict.fromkeys(beyond))
    check_writable(target, spec, quality)
    notes = [f"{name.upper()} of {size} bytes was dropped: {format} has less room" for name, size in beyond.items()]
    return spec, notes


def fitted(strip: NDArray[Any], spec: ImageSpec) -> NDArray[Any]:
    """Rows [N, W, C] in the depth and mode of a spec."""
    if strip.dtype.name != spec.dtype:
        dtype = np.dtype(spec.dtype)
        white = 1.0 if strip.dtype.kind == "f" else float(np.iinfo(strip.dtype).max)
        strip = np.rint(strip * (np.iinfo(dtype).max / white)).astype(dtype)
    return strip if strip.shape[2] == spec.channels else strip[:, :, [0, 0, 0, 1]]
