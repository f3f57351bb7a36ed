"""The option-file keys that all data sets share, as strict pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

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
    }
)


class StrictOptions(BaseModel):
    """Unknown keys and values of another type are faults."""

    model_config = ConfigDict(extra="forbid", strict=True)


class IoBackend(StrictOptions):
    """Where the images are kept."""

    type: Literal["disk"] = Field("disk", description="`disk`: image files in folders.")


class DatasetOptions(StrictOptions):
    """Keys of every data set."""

    type: str = Field(description="Class of the data set.")
    name: str | None = Field(None, description="Its name in logs and results.")
    phase: str = Field("train", description="`train` cuts random patches; `val` and `test` take whole images.")
    scale: int = Field(1, ge=1, description="Size of the ground truth over that of the input; 1 for denoising.")
    dataroot_gt: str = Field(description="Folder of the ground truth.")
    meta_info_file: str | None = Field(
        None, description="Text file with one image name per line, to use only these; null takes the whole folder."
    )
    io_backend: IoBackend = Field(default_factory=IoBackend, description="Where the images are kept.")
    color: Literal["rgb", "gray", "y"] = Field(
        "rgb", description="Channels: `rgb`; `gray` (one, full range); `y` (one, the luma of BT.601, 16 to 235)."
    )
    gt_size: int | None = Field(
        None, ge=1, validate_default=True, description="Side of the training patches in ground-truth pixels."
    )
    use_hflip: bool = Field(False, description="Flip half of the patches left to right.")
    use_rot: bool = Field(False, description="Flip half of the patches upside down, and turn half by 90 degrees.")
    cache: bool | None = Field(
        None, description="Keep decoded images in memory; null: up to 256 MiB in each reading process."
    )

    @field_validator("gt_size")
    @classmethod
    def _is_whole_in_both_sizes(cls, gt_size: int | None, info: ValidationInfo) -> int | None:
        scale = info.data.get("scale", 1)
        if gt_size is None and info.data.get("phase") == "train":
            raise ValueError("phase train needs the side of the patches, in ground-truth pixels")
        if gt_size is not None and gt_size % scale:
            raise ValueError(f"must be a multiple of scale ({scale})")
        return gt_size

    @property
    def is_train(self) -> bool:
        """Whether samples are random patches."""
        return self.phase == "train"


class PairedOptions(DatasetOptions):
    """Keys of data sets with two folders."""

    dataroot_lq: str = Field(description="Folder of the low-quality inputs.")
    filename_tmpl: str = Field(
        "{}", description="Name of the input without suffix, `{}` being that of the ground truth (`{}x4`)."
    )

    @field_validator("filename_tmpl")
    @classmethod
    def _has_one_place(cls, template: str) -> str:
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise ValueError("must hold {} once, for the name of the ground truth")
        return template


class GaussianDenoisingOptions(DatasetOptions):
    """Keys of Gaussian denoising."""

    sigma: float | list[float] = Field(
        description="Standard deviation of the noise in grey levels of 255; [low, high] draws one per training patch."
    )
    noise_seed: int = Field(0, ge=0, description="Seed of the noise of every validation and test image.")

    @field_validator("scale")
    @classmethod
    def _keeps_the_size(cls, scale: int) -> int:
        if scale != 1:
            raise ValueError("must be 1: denoising keeps the size")
        return scale

    @field_validator("sigma")
    @classmethod
    def _is_possible(cls, sigma: float | list[float], info: ValidationInfo) -> float | list[float]:
        bounds = sigma if isinstance(sigma, list) else [sigma]
        if len(bounds) not in (1, 2) or min(bounds) < 0 or bounds != sorted(bounds):
            raise ValueError("must be a number >= 0, or [low, high] with low <= high")
        if len(bounds) == 2 and info.data.get("phase") != "train":
            raise ValueError(f"must be one number in phase {info.data.get('phase')}; only training draws from a range")
        return sigma


def own_options(opt: dict[str, Any]) -> dict[str, Any]:
    """``opt`` without the keys that concern the loader or nobody."""
    return {key: value for key, value in opt.items() if key not in LOADER_KEYS}
