"""The option-file keys that all data sets share, as strict pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

# Keys of BasicSR's option files that are the loader's, or nobody's: a data set passes over them.
LOADER_KEYS = frozenset(
    {
        "total_batch_size",
        "batch_size_per_gpu",
        "num_worker_per_gpu",
        "dataset_enlarge_ratio",
        "pin_memory",
        "persistent_workers",
        "use_shuffle",
        "prefetch_mode",
        "num_prefetch_queue",
        "task",
        "metrics",
    }
)


class StrictOptions(BaseModel):
    """Unknown keys and values of another type are faults."""

    model_config = ConfigDict(extra="forbid", strict=True)


class IoBackend(StrictOptions):
    """Where the images are kept."""

    type: Literal["disk", "lmdb"] = Field(
        "disk", description="`disk`: image files in folders; `lmdb`: the folders are LMDBs."
    )


Folders = str | Annotated[list[str], Field(min_length=1)]


class ImageOptions(StrictOptions):
    """Keys of every data set."""

    type: str = Field(description="Class of the data set.")
    name: str | None = Field(None, description="Its name in logs and results.")
    phase: str = Field("train", description="`train` cuts random patches; `val` and `test` take whole images.")
    scale: int = Field(1, ge=1, description="Size of the ground truth over that of the input; 1 for denoising.")
    meta_info_file: str | None = Field(
        None, description="Text file with one image name per line, to use only these; null takes the whole folder."
    )
    io_backend: IoBackend = Field(default_factory=IoBackend, description="Where the images are kept.")
    color: Literal["rgb", "gray", "y"] = Field(
        "rgb", description="Channels: `rgb`; `gray` (one, full range); `y` (one, the luma of BT.601, 16 to 235)."
    )
    cache: bool | None = Field(
        None, description="Keep decoded images in memory; null: up to 256 MiB in each reading process."
    )

    @property
    def is_train(self) -> bool:
        """Whether samples are random patches."""
        return self.phase == "train"


class DatasetOptions(ImageOptions):
    """Keys of data sets with ground truth."""

    dataroot_gt: Folders = Field(description="Folder of the ground truth, or a list of folders.")
    gt_size: int | None = Field(None, ge=1, description="Side of the training patches in ground-truth pixels.")
    gt_sizes: list[int] | None = Field(
        None, description="Sides of the patches one after the other, each for as many steps as `iters` says."
    )
    iters: list[int] | None = Field(
        None, description="Steps of each of `gt_sizes`; the last goes on to the end of the training."
    )
    use_hflip: bool = Field(False, description="Flip half of the patches left to right.")
    use_rot: bool = Field(False, description="Flip half of the patches upside down, and turn half by 90 degrees.")
    skip_unreadable: bool = Field(
        False,
        description="In training, take another image for one that cannot be used, and name it in the log once; false "
        "ends the training with its name.",
    )

    @model_validator(mode="after")
    def _has_sides_of_patches(self) -> DatasetOptions:
        if self.gt_size is None and self.gt_sizes is None and self.phase == "train":
            raise ValueError("gt_size: phase train needs the side of the patches, in ground-truth pixels")
        if self.gt_size is not None and self.gt_size % self.scale:
            raise ValueError(f"gt_size: must be a multiple of scale ({self.scale})")
        if self.gt_sizes is None and self.iters is not None:
            raise ValueError("iters: has no meaning without gt_sizes")
        if self.gt_sizes is not None:
            if self.iters is None or len(self.iters) != len(self.gt_sizes) or min(self.iters, default=0) < 1:
                raise ValueError("iters: must be one positive number of steps for each of gt_sizes")
            if any(size < 1 or size % self.scale for size in self.gt_sizes):
                raise ValueError(f"gt_sizes: must be positive multiples of scale ({self.scale})")
        return self

    @property
    def largest_gt_size(self) -> int:
        """Side of the largest patches; 0 where none are cut."""
        return max(self.gt_sizes or [self.gt_size or 0])


_TEMPLATE = "Name of the input without suffix, `{}` being that of the ground truth (`{}x4`)."


def _has_one_place(template: str) -> str:
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise ValueError("must hold {} once, for the name of the ground truth")
    return template


def _keeps_the_size(scale: int) -> int:
    if scale != 1:
        raise ValueError("must be 1: this task keeps the size")
    return scale


Template = Annotated[str, AfterValidator(_has_one_place)]
ScaleOne = Annotated[int, AfterValidator(_keeps_the_size)]


class SingleImageOptions(ImageOptions):
    """Keys of images without ground truth."""

    dataroot_lq: Folders = Field(description="Folder of the images, or a list of folders.")

    @model_validator(mode="after")
    def _trains_nothing(self) -> SingleImageOptions:
        if self.is_train:
            raise ValueError("phase: images without ground truth cannot be trained on, only validated and tested")
        return self


class PairedOptions(DatasetOptions):
    """Keys of data sets with two folders."""

    dataroot_lq: Folders = Field(
        description="Folder of the low-quality inputs, or a list with one for each of `dataroot_gt`."
    )
    filename_tmpl: Template = Field("{}", description=_TEMPLATE)


class GaussianDenoisingOptions(DatasetOptions):
    """Keys of Gaussian denoising."""

    scale: ScaleOne = Field(1, description="1: the size stays.")
    sigma: float | list[float] = Field(
        description="Standard deviation of the noise in grey levels of 255; [low, high] draws one per training patch."
    )
    noise_seed: int = Field(0, ge=0, description="Seed of the noise of every validation and test image.")
    clip_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that the noisy image is clipped and rounded to 8 bits, as files are; outside of "
        "training 0 or 1.",
    )

    @field_validator("sigma")
    @classmethod
    def _is_possible(cls, sigma: float | list[float], info: ValidationInfo) -> float | list[float]:
        bounds = sigma if isinstance(sigma, list) else [sigma]
        if len(bounds) not in (1, 2) or min(bounds) < 0 or bounds != sorted(bounds):
            raise ValueError("must be a number >= 0, or [low, high] with low <= high")
        if len(bounds) == 2 and info.data.get("phase") != "train":
            raise ValueError(f"must be one number in phase {info.data.get('phase')}; only training draws from a range")
        return sigma

    @model_validator(mode="after")
    def _clips_always_or_never(self) -> GaussianDenoisingOptions:
        if not self.is_train and self.clip_probability not in (0, 1):
            raise ValueError(f"clip_probability: must be 0 or 1 in phase {self.phase}; only training draws")
        return self


class JPEGOptions(DatasetOptions):
    """Keys of JPEG artefact removal."""

    scale: ScaleOne = Field(1, description="1: the size stays.")
    quality: int | list[int] | None = Field(
        None,
        description="Compress in memory with this quality, 1 to 100; [low, high] draws one per training patch. This or "
        "`dataroot_lq`.",
    )
    subsampling: Literal["4:2:0", "4:4:4"] = Field(
        "4:2:0", description="Of the colour when compressing in memory: `4:2:0` halves it both ways."
    )
    dataroot_lq: Folders | None = Field(
        None, description="Folder of compressed images, or a list with one for each of `dataroot_gt`."
    )
    filename_tmpl: Template = Field("{}", description=_TEMPLATE)

    @model_validator(mode="after")
    def _has_one_origin(self) -> JPEGOptions:
        if self.quality is None and self.dataroot_lq is None:
            raise ValueError("give quality, to compress in memory, or dataroot_lq, the folder of compressed images")
        if self.quality is not None and self.dataroot_lq is not None:
            raise ValueError("quality: dataroot_lq names images that are compressed already; delete one of the two")
        bounds = self.quality if isinstance(self.quality, list) else [1 if self.quality is None else self.quality]
        if len(bounds) not in (1, 2) or not 1 <= min(bounds) <= max(bounds) <= 100 or bounds != sorted(bounds):
            raise ValueError("quality: must be from 1 to 100, or [low, high] with low <= high")
        if len(bounds) == 2 and not self.is_train:
            raise ValueError(f"quality: must be one number in phase {self.phase}; only training draws from a range")
        return self


class RealDenoisingOptions(DatasetOptions):
    """Keys of denoising of real photographs."""

    scale: ScaleOne = Field(1, description="1: the size stays.")
    dataroot_lq: Folders | None = Field(
        None,
        description="Folder of the noisy images, or a list; null: they are in `dataroot_gt`, beside the clean ones, in "
        "one folder per scene.",
    )
    filename_tmpl: Template = Field("{}", description=_TEMPLATE)
    gt_word: str = Field("GT", min_length=1, description="Without `dataroot_lq`: what names of clean images contain.")
    lq_word: str = Field("NOISY", min_length=1, description="Without `dataroot_lq`: what names of noisy ones contain.")

    @model_validator(mode="after")
    def _has_two_words(self) -> RealDenoisingOptions:
        if self.gt_word == self.lq_word:
            raise ValueError(f"lq_word: must differ from gt_word ({self.gt_word})")
        return self


class MixedOptions(StrictOptions):
    """Keys of several data sets in one."""

    type: str = Field(description="Class of the data set.")
    name: str | None = Field(None, description="Its name in logs and results.")
    phase: str = Field("train", description="`train` cuts random patches; `val` and `test` take whole images.")
    scale: int = Field(1, ge=1, description="Size of the ground truth over that of the input; 1 for denoising.")
    datasets: list[dict[str, Any]] = Field(
        min_length=1, description="Data sets with all their keys, but those of the loader; patches of one size."
    )
    weights: list[float] | None = Field(
        None, description="Share of each in the samples (need not sum to 1); null: by the number of images."
    )
    skip_unreadable: bool = Field(False, description="As in other data sets; those of `datasets` are not looked at.")

    @field_validator("weights")
    @classmethod
    def _one_for_each(cls, weights: list[float] | None, info: ValidationInfo) -> list[float] | None:
        count = len(info.data.get("datasets", weights or ()))
        if weights is not None and (len(weights) != count or min(weights) <= 0):
            raise ValueError(f"must be one number > 0 for each of the {count} datasets, got {weights}")
        return weights


def own_options(opt: dict[str, Any]) -> dict[str, Any]:
    """``opt`` without the keys that concern the loader or nobody."""
    return {key: value for key, value in opt.items() if key not in LOADER_KEYS}
