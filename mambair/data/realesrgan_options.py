"""The option-file keys of training on real photographs, in Real-ESRGAN's vocabulary."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mambair.data.dataset_options import DatasetOptions, PairedOptions, StrictOptions
from mambair.data.degradations.settings import DegradationSettings

_PUBLISHED_REGION = 400
_PHOTO_MARGIN = 16  # input pixels around a patch, together of both sides


class TargetOptions(StrictOptions):
    """Which targets are sharpened, and keys of published files that change nothing here."""

    # keys that BasicSR's files have at the top level
    TOP_LEVEL_KEYS: ClassVar[frozenset[str]] = frozenset(
        {"gt_usm", "l1_gt_usm", "percep_gt_usm", "gan_gt_usm", "high_order_degradation", "queue_size", "gt_size"}
    )

    gt_usm: bool = Field(
        True, description="Sharpen the ground truth of training; RealESRGANDataset makes its inputs of that, too."
    )
    l1_gt_usm: bool | None = Field(
        None, description="Sharpen the target of pixel losses, whatever the inputs are made of; null: as `gt_usm`."
    )
    percep_gt_usm: bool | None = Field(None, description="Sharpen the target of the perceptual loss: as `l1_gt_usm`.")
    gan_gt_usm: bool | None = Field(
        None,
        description="Sharpen the real images of a discriminator; where that differs from `l1_gt_usm`, batches hold "
        "them as `gt_gan`.",
    )
    queue_size: int = Field(
        180,
        ge=1,
        description="Published size of the pool that mixes batches; without effect: here every sample draws everything "
        "for itself, so batches are mixed as they are.",
    )
    meta_info: str | None = Field(None, description="Real-ESRGAN's name of `meta_info_file`.")

    @model_validator(mode="after")
    def _has_one_target(self) -> TargetOptions:
        if self.percep_gt_usm is not None and self.percep_gt_usm != self.is_target_sharp:
            here = str(self.is_target_sharp).lower()
            raise ValueError(
                f"percep_gt_usm: must equal l1_gt_usm ({here}): pixel and perceptual losses share a target"
            )
        return self

    @property
    def is_target_sharp(self) -> bool:
        """Whether ``gt`` is sharpened."""
        return self.gt_usm if self.l1_gt_usm is None else self.l1_gt_usm


class RealESRGANOptions(TargetOptions, DegradationSettings, DatasetOptions):
    """Keys of synthetic degradations."""

    TOP_LEVEL_KEYS: ClassVar[frozenset[str]] = TargetOptions.TOP_LEVEL_KEYS | (
        DegradationSettings.model_fields.keys() - {"preset", "order"}
    )

    high_order_degradation: bool = Field(
        True, description="True: inputs are synthesised; false (pairs) needs RealESRGANPairedDataset."
    )
    degraded_size: int | None = Field(
        None,
        ge=1,
        description="Side of the region that is degraded, of which the patch is cut; smaller images are reflected. "
        "null: 400, as published, or gt_size if larger; with `preset: photo` gt_size + 16 scale.",
    )
    degrade_on: Literal["workers", "device"] = Field(
        "workers",
        description="`workers`: in the reading processes, with real files; `device`: batch by batch where the network "
        "is, JPEG by its arithmetic.",
    )

    @model_validator(mode="after")
    def _is_synthetic(self) -> RealESRGANOptions:
        if not self.high_order_degradation:
            raise ValueError("high_order_degradation: false means pairs of files: type RealESRGANPairedDataset")
        if self.meta_info is not None and self.meta_info_file is not None:
            raise ValueError("meta_info: is another name of meta_info_file; delete one of the two")
        if self.degraded_size is not None and self.degraded_size < self.largest_gt_size:
            raise ValueError(f"degraded_size: must not be below gt_size ({self.largest_gt_size})")
        return self

    def region(self, gt_size: int) -> int:
        """Side of the ground-truth region for a patch of ``gt_size``, a multiple of ``scale``."""
        default = _PUBLISHED_REGION if self.preset == "realesrgan" else gt_size + _PHOTO_MARGIN * self.scale
        return -(-max(self.degraded_size or default, gt_size) // self.scale) * self.scale


class RealESRGANPairedOptions(TargetOptions, PairedOptions):
    """Keys of pairs for training on real photographs."""

    high_order_degradation: bool = Field(False, description="Must be false: the inputs are files.")

    @model_validator(mode="after")
    def _is_paired(self) -> RealESRGANPairedOptions:
        if self.high_order_degradation:
            raise ValueError("high_order_degradation: must be false for pairs; RealESRGANDataset makes its inputs")
        if self.meta_info is not None and self.meta_info_file is not None:
            raise ValueError("meta_info: lists pairs, so meta_info_file has no meaning; delete one of the two")
        return self
