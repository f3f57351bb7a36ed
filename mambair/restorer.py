"""One image through one network: modes, depths, alpha and tiles on the way in, the same kind of image back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mambair.data.transparency import enlarged_rows, fill_transparent
from mambair.loading import load
from mambair.tiling import DEFAULT_OVERLAP, DEFAULT_TILE, tile_count, tile_spans, tiled_strips

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

Progress = Callable[[int, int], None]


class NonFiniteOutputError(ArithmeticError):
    """A network gave NaN or infinite pixels."""


@dataclass(frozen=True)
class _Planes:
    """An image as the restorer works on it, and the way back to what the caller gave."""

    pixels: Tensor  # [B, C, H, W], a dtype of WHITE
    finish: Callable[[Tensor], Any]


class Restorer:
    """A network with all that lies between it and an image.

    Args:
        net: [B, C, H, W] float in [0, 1] -> [B, C, H * upscale, W * upscale]; has ``upscale`` and ``in_chans``. It is
            moved to ``device`` and set to evaluation.
        device: where it runs; default: CUDA if there is one, else the CPU.
        tile: the largest side of a tile in input pixels; 0 means always the whole image. The default is the same on
            every machine, so that the pixels are too.
        overlap: the least overlap of tiles, in input pixels; default 32, or a quarter of a smaller tile.
        batch: tiles per call of the network.
        dtype: float32, or bfloat16 / float16 for autocast (the scan keeps float32 states).

    Raises:
        ValueError: a tile or overlap that cannot be, a dtype other than those three, a device that is not there, a
            network that does not restore images.

    A restorer may be called from several threads at once.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        device: str | torch.device | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype: must be float32, bfloat16 or float16, got {dtype}")
        if not hasattr(net, "upscale"):
            raise ValueError(f"net: {type(net).__name__} restores no images, it is a backbone (it has no upscale)")
        self.device = choose_device(device)
        self.net = net.eval().to(self.device)
        self.scale: int = net.upscale  # type: ignore[assignment]
        self.in_chans: int = net.in_chans  # type: ignore[assignment]
        self.tile = DEFAULT_TILE if tile is None else tile
        self.overlap = min(DEFAULT_OVERLAP, max(self.tile, 0) // 4) if overlap is None else overlap
        self.multiple = int(getattr(net, "window_size", 1))
        self.batch = batch
        self.dtype = dtype
        tile_spans(1, tile=self.tile, overlap=self.overlap, multiple=self.multiple)  # wrong settings fail here

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        param_key: str | None = None,
    ) -> Restorer:
        """Load the network a file of weights belongs to (``mambair.load``); the other arguments as for the class.

        Raises:
            ValueError: the file is not understood (CheckpointError), or a setting is wrong.
            OSError: it cannot be read.
        """
        net = load(path, param_key=param_key)
        return cls(net, device=device, tile=tile, overlap=overlap, batch=batch, dtype=dtype)

    def __call__(self, image: Any, *, progress: Progress | None = None) -> Any:
        """Restore one image; the result is of the same kind, dtype and mode, ``scale`` times the size.

        Args:
            image: a numpy array [H, W] or [H, W, C] (RGB order), uint8, uint16 or float; or a PIL image; or a torch
                tensor [C, H, W] or [B, C, H, W], float, uint8 or uint16. Floats are in [0, 1] (noise may exceed it).
                C is what the network takes, or: grey for an RGB network (replicated, and averaged back), RGB for a
                grey network (each channel by itself), and either with alpha as the last channel. Alpha is enlarged
                bicubically; colour under fully transparent pixels is replaced by what is visible beside it.
                PIL modes L, LA, RGB, RGBA, I;16 and F are kept; 1 becomes L; palettes, CMYK, YCbCr, LAB and HSV
                become RGB, RGBA if they have transparency.
            progress: called after each tile with (tiles done, tiles in all).

        Returns:
            The restored image, clipped to [0, 1]; integers are rounded.

        Raises:
            ValueError: an image that is none of the above.
            NonFiniteOutputError: the network gave NaN or infinite pixels.
        """
        planes = _to_planes(image)
        batch, channels, height, width = planes.pixels.shape
        # rows and columns before channels in memory, as numpy and PIL want them
        output = torch.empty(
            (batch, height * self.scale, width * self.scale, channels),
            dtype=planes.pixels.dtype,
            device=planes.pixels.device,
        ).permute(0, 3, 1, 2)
        done = 0
        for strip in self._strips(planes.pixels, progress):
            output[..., done : done + strip.shape[-2], :] = strip
            done += strip.shape[-2]
        return planes.finish(output)

    def strips(self, image: np.ndarray, *, progress: Progress | None = None) -> Iterator[np.ndarray]:
        """As calling the restorer on a numpy array, but yield the result from top to bottom in strips of rows.

        Only one row of tiles of the result is in memory at a time, whatever the height of the image.
        """
        planes = _from_numpy(image)
        return (planes.finish(strip) for strip in self._strips(planes.pixels, progress))

    def tiles_of(self, height: int, width: int) -> int:
        """How many tiles an image of that size is cut into."""
        return tile_count(height, width, tile=self.tile, overlap=self.overlap, multiple=self.multiple)

    def _strips(self, pixels: Tensor, progress: Progress | None) -> Iterator[Tensor]:
        """[B, C, H, W] -> finished strips [B, C, rows, W * scale] of the same dtype, on the same device."""
        colour, alpha = self._split(pixels)
        done, total = 0, self.tiles_of(*pixels.shape[-2:])

        def net(tile: Tensor) -> Tensor:
            nonlocal done
            restored = self._run(tile, white)
            if progress is not None:
                done += tile.shape[0] // pixels.shape[0]
                progress(done, total)
            return restored

        white = WHITE[pixels.dtype]
        row = 0
        for strip in tiled_strips(
            net,
            colour,
            scale=self.scale,
            tile=self.tile,
            overlap=self.overlap,
            multiple=self.multiple,
            batch=self.batch,
        ):
            finished = strip.clamp(0, 1) * white
            if white > 1:
                finished = finished.round()
            finished = finished.to(pixels.dtype)
            if alpha is not None:
                rows = enlarged_rows(alpha, self.scale, row, row + strip.shape[-2])  # [rows, W * scale, B]
                finished = torch.cat([finished, torch.from_numpy(rows).permute(2, 0, 1)[:, None].to(finished)], dim=1)
            row += strip.shape[-2]
            yield finished

    def _split(self, pixels: Tensor) -> tuple[Tensor, np.ndarray | None]:
        """Colour [B, 1 or 3 or in_chans, H, W], safe under transparent pixels, and alpha [H, W, B] if there is any."""
        channels = pixels.shape[1]
        if self._fits(channels):
            return pixels, None
        if channels not in (2, 4) or not self._fits(channels - 1):
            raise ValueError(f"image: has {channels} channels, which do not fit a network of {self.in_chans}")
        image = (pixels.float() if pixels.dtype == torch.bfloat16 else pixels).permute(0, 2, 3, 1).cpu().numpy()
        colour = np.stack([fill_transparent(one[..., :-1], one[..., -1]) for one in image])
        alpha = np.ascontiguousarray(image[..., -1].transpose(1, 2, 0))
        return torch.from_numpy(colour).permute(0, 3, 1, 2).to(pixels.device), alpha

    def _fits(self, channels: int) -> bool:
        return channels == self.in_chans or {channels, self.in_chans} == {1, 3}

    @torch.inference_mode()
    def _run(self, tile: Tensor, white: float) -> Tensor:
        """The network on tiles [B, C, h, w]: float32 [B, C, h * scale, w * scale] on the device of ``tile``."""
        x = tile.to(self.device).to(torch.float32) / white
        images, channels = x.shape[:2]
        if channels < self.in_chans:  # grey through an RGB network
            x = x.expand(-1, self.in_chans, -1, -1)
        elif channels > self.in_chans:  # RGB through a grey network: each channel by itself
            x = x.reshape(images * channels, 1, *x.shape[2:])
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            y = self.net(x).to(torch.float32)
        broken = y.numel() - int(y.isfinite().sum())
        if broken:
            raise NonFiniteOutputError(
                f"the network gave NaN or infinity in {broken} of {y.numel()} values of a tile of "
                f"{tile.shape[-1]}x{tile.shape[-2]} pixels ({self.dtype}); "
                + ("try float32" if self.dtype != torch.float32 else "the weights are damaged or of another network")
            )
        if channels < self.in_chans:
            y = y.mean(dim=1, keepdim=True)
        elif channels > self.in_chans:
            y = y.reshape(images, channels, *y.shape[2:])
        return y.to(tile.device)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device of that name; for None CUDA if there is one, else the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: torch knows no {device!r}; cpu, cuda or cuda:1 are names of devices") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {device} is asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return chosen


def _to_planes(image: Any) -> _Planes:
    if isinstance(image, np.ndarray):
        return _from_numpy(image)
    if isinstance(image, Tensor):
        return _from_torch(image)
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return _from_pil(image)
    raise ValueError(f"image: must be a numpy array, a PIL image or a torch tensor, got {type(image).__name__}")


def _from_torch(image: Tensor) -> _Planes:
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [C, H, W] or [B, C, H, W], got shape {tuple(image.shape)}")
    if image.dtype not in WHITE:
        raise ValueError(f"image: must be float in [0, 1], uint8 or uint16, got {image.dtype}")
    image = image.detach()
    _check_values(image)
    if image.ndim == 3:
        return _Planes(image[None], lambda output: output[0].contiguous())
    return _Planes(image, lambda output: output.contiguous())


def _from_numpy(image: np.ndarray) -> _Planes:
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image: must be a non-empty [H, W] or [H, W, C], got shape {image.shape}")
    if image.dtype.name not in ("uint8", "uint16", "float16", "float32", "float64"):
        raise ValueError(f"image: must be uint8, uint16 or float in [0, 1], got {image.dtype}; convert it first")
    # torch shares the memory; it takes native byte order, no negative strides and nothing read-only
    shared = np.require(image, dtype=image.dtype.newbyteorder("="), requirements=["C", "W"])
    pixels = torch.from_numpy(shared if image.ndim == 3 else shared[..., None]).permute(2, 0, 1)[None]
    _check_values(pixels)

    def finish(output: Tensor) -> np.ndarray:
        array = np.ascontiguousarray(output[0].permute(1, 2, 0).numpy()).astype(image.dtype, copy=False)
        return array if image.ndim == 3 else array[..., 0]

    return _Planes(pixels, finish)


def _from_pil(image: Any) -> _Planes:
    from PIL import Image  # only who hands over a PIL image has it imported already

    mode = _PIL_CONVERTED.get(image.mode, image.mode)
    if "transparency" in image.info:
        mode = _PIL_TRANSPARENT.get(image.mode, mode)
    if mode not in _PIL_KEPT:
        raise ValueError(f"image: PIL mode {image.mode!r} has no fixed range; convert it to one of {_PIL_KEPT}")
    planes = _from_numpy(np.array(image if image.mode == mode else image.convert(mode)))

    def finish(output: Tensor) -> Any:
        restored = Image.fromarray(planes.finish(output))
        if "icc_profile" in image.info:
            restored.info["icc_profile"] = image.info["icc_profile"]
        return restored

    return _Planes(planes.pixels, finish)


def _check_values(pixels: Tensor) -> None:
    if not pixels.is_floating_point():
        return
    low, high = (float(value) for value in pixels.aminmax())
    if not (low >= -_FARTHEST and high <= _FARTHEST):  # so that NaN is refused too
        raise ValueError(f"image: floats must be finite and in [0, 1], got {low:g} to {high:g}; divide by the maximum")
