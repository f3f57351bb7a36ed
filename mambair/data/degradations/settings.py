"""The distribution that degradations are drawn from, as option-file keys with the published defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from PIL import features
from pydantic import AfterValidator, Field, model_validator

from mambair.data.dataset_options import StrictOptions
from mambair.data.degradations.compression import Codec, Subsampling
from mambair.data.degradations.kernels import KernelKind
from mambair.data.degradations.resize import ResizeMode

SMALLEST_KERNEL = 7


def _are_weights(weights: list[float]) -> list[float]:
    if not weights or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"must be weights >= 0 that are not all 0, got {weights}")
    return weights


def _is_range(bounds: list[float]) -> list[float]:
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"must be [low, high] with 0 <= low <= high, got {bounds}")
    return bounds


def _is_quality(bounds: list[int]) -> list[int]:
    if len(bounds) != 2 or not 1 <= bounds[0] <= bounds[1] <= 100:
        raise ValueError(f"must be [low, high] with 1 <= low <= high <= 100, got {bounds}")
    return bounds


def _is_odd(size: int) -> int:
    if size < SMALLEST_KERNEL or size % 2 == 0:
        raise ValueError(f"must be an odd number from {SMALLEST_KERNEL}, got {size}")
    return size


Chance = Annotated[float, Field(ge=0, le=1)]
Weights = Annotated[list[float], AfterValidator(_are_weights)]
Range = Annotated[list[float], AfterValidator(_is_range)]
Quality = Annotated[list[int], AfterValidator(_is_quality)]
KernelSize = Annotated[int, AfterValidator(_is_odd)]

_KERNELS: list[KernelKind] = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_KERNEL_WEIGHTS = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
_MODES: list[ResizeMode] = ["area", "bilinear", "bicubic"]

# what a preset changes of the defaults below
PRESETS: dict[str, dict[str, Any]] = {
    "realesrgan": {},
    "photo": {
        "order": 1,
        "gt_usm": False,
        "blur_prob": 0.7,
        "kernel_list": ["iso", "aniso"],
        "kernel_prob": [0.6, 0.4],
        "sinc_prob": 0.0,
        "blur_sigma": [0.0, 1.2],
        "resize_prob": [0.0, 0.0, 1.0],
        "antialias": True,
        "noise_prob": 0.7,
        "noise_range": [0.0, 10.0],
        "poisson_scale_range": [0.0, 0.9],
        "compress_prob": 0.7,
        "jpeg_range": [40, 95],
        "final_sinc_prob": 0.0,
    },
}


class DegradationSettings(StrictOptions):
    """Probabilities and ranges. A range is [low, high], drawn from evenly; a list of weights need not sum to 1."""

    preset: Literal["realesrgan", "photo"] = Field(
        "realesrgan",
        description="Defaults of the keys below: `realesrgan` as published; `photo` mild, with clean samples "
        "(docs/training.md).",
    )
    order: Literal[1, 2] = Field(
        2,
        description="Degradations one after the other: 2 as in Real-ESRGAN; 1: blur, resize, noise, compression once.",
    )
    # first stage
    blur_prob: Chance = Field(1.0, description="Probability of the first blur.")
    blur_kernel_size: KernelSize = Field(21, description="Largest side of a kernel; odd sizes from 7 are drawn.")
    kernel_list: list[KernelKind] = Field(_KERNELS, description="Kinds of kernels.")
    kernel_prob: Weights = Field(_KERNEL_WEIGHTS, description="Their weights.")
    sinc_prob: Chance = Field(0.1, description="Probability of a sinc kernel instead.")
    blur_sigma: Range = Field([0.2, 3.0], description="Standard deviations of kernels, in pixels.")
    betag_range: Range = Field(
        [0.5, 4.0], description="Shape of generalized kernels; half of them up to 1, half from 1."
    )
    betap_range: Range = Field([1.0, 2.0], description="Shape of plateau kernels, likewise.")
    resize_prob: Weights = Field([0.2, 0.7, 0.1], description="Weights of enlarging, reducing and keeping the size.")
    resize_range: Range = Field([0.15, 1.5], description="Smallest and largest factor of the size.")
    noise_prob: Chance = Field(1.0, description="Probability of noise.")
    gaussian_noise_prob: Chance = Field(0.5, description="Probability that noise is Gaussian; else Poisson.")
    noise_range: Range = Field([1.0, 30.0], description="Standard deviation of Gaussian noise, in grey levels of 255.")
    poisson_scale_range: Range = Field([0.05, 3.0], description="Factor on Poisson noise.")
    gray_noise_prob: Chance = Field(0.4, description="Probability that noise is the same on all channels.")
    compress_prob: Chance = Field(1.0, description="Probability of compression.")
    codec_prob: Weights = Field([1.0, 0.0, 0.0], description="Weights of the codecs in `codec_list`.")
    jpeg_range: Quality = Field([30, 95], description="Quality of JPEG, 1 to 100.")
    webp_range: Quality = Field([30, 95], description="Quality of WebP.")
    avif_range: Quality = Field([30, 95], description="Quality of AVIF.")
    # second stage
    second_blur_prob: Chance = Field(0.8, description="Probability of the second blur.")
    blur_kernel_size2: KernelSize = Field(21, description="As `blur_kernel_size`, second stage.")
    kernel_list2: list[KernelKind] = Field(_KERNELS, description="As `kernel_list`, second stage.")
    kernel_prob2: Weights = Field(_KERNEL_WEIGHTS, description="As `kernel_prob`, second stage.")
    sinc_prob2: Chance = Field(0.1, description="As `sinc_prob`, second stage.")
    blur_sigma2: Range = Field([0.2, 1.5], description="As `blur_sigma`, second stage.")
    betag_range2: Range = Field([0.5, 4.0], description="As `betag_range`, second stage.")
    betap_range2: Range = Field([1.0, 2.0], description="As `betap_range`, second stage.")
    resize_prob2: Weights = Field([0.3, 0.4, 0.3], description="As `resize_prob`, second stage.")
    resize_range2: Range = Field([0.3, 1.2], description="As `resize_range`, times ground truth / scale.")
    noise_prob2: Chance = Field(1.0, description="As `noise_prob`, second stage.")
    gaussian_noise_prob2: Chance = Field(0.5, description="As `gaussian_noise_prob`, second stage.")
    noise_range2: Range = Field([1.0, 25.0], description="As `noise_range`, second stage.")
    poisson_scale_range2: Range = Field([0.05, 2.5], description="As `poisson_scale_range`, second stage.")
    gray_noise_prob2: Chance = Field(0.4, description="As `gray_noise_prob`, second stage.")
    compress_prob2: Chance = Field(1.0, description="As `compress_prob`, second stage.")
    codec_prob2: Weights = Field([1.0, 0.0, 0.0], description="As `codec_prob`, second stage.")
    jpeg_range2: Quality = Field([30, 95], description="As `jpeg_range`, second stage.")
    webp_range2: Quality = Field([30, 95], description="As `webp_range`, second stage.")
    avif_range2: Quality = Field([30, 95], description="As `avif_range`, second stage.")
    # both, and the end
    codec_list: list[Codec] = Field(["jpeg", "webp", "avif"], description="Codecs of both stages.")
    subsampling_list: list[Subsampling] = Field(
        ["4:2:0", "4:2:2", "4:4:4"], description="Subsamplings of colour in JPEG and AVIF."
    )
    subsampling_prob: Weights = Field([1.0, 0.0, 0.0], description="Their weights.")
    resize_mode_list: list[ResizeMode] = Field(_MODES, min_length=1, description="Modes of resizing, equally likely.")
    antialias: bool = Field(
        False, description="Reduce with antialiasing (`bilinear`, `bicubic`), as good programs do; published: without."
    )
    lq_resize_mode: ResizeMode | list[ResizeMode] | None = Field(
        None, description="Mode of the last resizing, to the size of the input, or a list; null: as `resize_mode_list`."
    )
    final_sinc_prob: Chance = Field(0.8, description="Probability of a sinc filter beside the last compression.")

    @model_validator(mode="before")
    @classmethod
    def _take_the_preset(cls, given: Any) -> Any:
        preset = given.get("preset", "realesrgan") if isinstance(given, dict) else None
        changes = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        return (
            {**{key: value for key, value in changes.items() if key in cls.model_fields}, **given} if changes else given
        )

    @model_validator(mode="after")
    def _lists_fit(self) -> DegradationSettings:
        pairs = [("kernel_list", "kernel_prob"), ("kernel_list2", "kernel_prob2"), ("codec_list", "codec_prob")]
        pairs += [("codec_list", "codec_prob2"), ("subsampling_list", "subsampling_prob")]
        for names, weights in pairs:
            if len(getattr(self, names)) != len(getattr(self, weights)):
                count = len(getattr(self, weights))
                raise ValueError(f"{weights}: expected one weight for each of {names}, got {count}")
        for key in ("resize_prob", "resize_prob2"):
            if len(getattr(self, key)) != 3:
                raise ValueError(f"{key}: expected the weights of [enlarge, reduce, keep], got {getattr(self, key)}")
        for key, weights in (("resize_range", self.resize_prob), ("resize_range2", self.resize_prob2)):
            low, high = getattr(self, key)
            if low <= 0 or (weights[0] and high < 1) or (weights[1] and low > 1):
                raise ValueError(f"{key}: expected 0 < low <= 1 <= high, got [{low}, {high}]")
        for key in ("betag_range", "betag_range2", "betap_range", "betap_range2"):
            if getattr(self, key)[0] <= 0:
                raise ValueError(f"{key}: expected low > 0, got {getattr(self, key)}")
        if not features.check("avif") and self._uses_avif():
            raise ValueError("codec_prob: this installation of Pillow cannot write AVIF; set the weight of avif to 0")
        return self

    def _uses_avif(self) -> bool:
        weights = zip(self.codec_list, self.codec_prob, self.codec_prob2, strict=True)
        return any(codec == "avif" and (first or second) for codec, first, second in weights)
