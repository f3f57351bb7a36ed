"""Image files in and out; the only room that knows formats."""

from __future__ import annotations

from mambair.images.decoded_image import DecodedImage, ImageFileError
from mambair.images.files import list_images, read_image, write_image

__all__ = ["DecodedImage", "ImageFileError", "list_images", "read_image", "write_image"]
