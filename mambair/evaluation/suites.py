"""The suites of the papers: which test sets, made how, and measured how. Their names and sets: the data catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mambair.data_tools.catalogue import SUITES as SETS

NOISE_SEED = 0

Task = Literal["sr", "denoise", "jpeg", "real"]


@dataclass(frozen=True)
class TestSet:
    """A published test set.

    Attributes:
        name: as in the tables.
        images: how many it has; fewer on disk are measured, but not compared with printed numbers.
        folders: names under which it is usually kept, besides its own; capitals do not matter.
    """

    __test__ = False  # no test of pytest's

    name: str
    images: int
    folders: tuple[str, ...] = ()


TEST_SETS: dict[str, TestSet] = {
    test_set.name: test_set
    for test_set in (
        TestSet("Set5", 5),
        TestSet("Set14", 14),
        TestSet("B100", 100, ("BSD100", "BSDS100")),
        TestSet("Urban100", 100),
        TestSet("Manga109", 109),
        TestSet("CBSD68", 68, ("CBSD68HQ", "BSD68_color")),
        TestSet("Kodak24", 24, ("Kodak", "Kodak24HQ")),
        TestSet("McMaster", 18, ("McM", "McMasterHQ")),
        TestSet("Classic5", 5),
        TestSet("LIVE1", 29, ("LIVE1_gray",)),
        TestSet("RealSRSet", 20, ("RealSRSet+5images",)),
    )
}


@dataclass(frozen=True)
class Suite:
    """One table of a paper.

    Attributes:
        task: what is done to the images.
        sets: names of its test sets.
        level: what its degree is called: scale (of the network), sigma of the noise, quality of the JPEG files.
        printed_levels: the degrees the papers have.
        channels: of the images.
        luma: whether it is measured on the Y channel.
    """

    name: str
    title: str
    task: Task
    sets: tuple[str, ...]
    level: str
    printed_levels: tuple[int, ...]
    channels: int
    luma: bool

    def metrics(self, level: int) -> dict[str, dict[str, Any]]:
        """The metrics as an option file has them."""
        crop = level if self.task == "sr" else 0
        if not self.has_ground_truth:
            return {"niqe": {"type": "calculate_niqe", "crop_border": crop, "better": "lower"}}
        shared = {"crop_border": crop, "test_y_channel": self.luma}
        return {"psnr": {"type": "calculate_psnr", **shared}, "ssim": {"type": "calculate_ssim", **shared}}

    def upscale(self, level: int) -> int:
        """Output pixels for one input pixel, along an axis."""
        return level if self.is_scaled else 1

    def degree(self, level: int) -> str:
        """``x4``, ``sigma 25``, ``quality 10``."""
        return f"x{level}" if self.is_scaled else f"{self.level} {level}"

    @property
    def input_name(self) -> str:
        """What the row of the unrestored input is called."""
        return {"sr": "bicubic", "denoise": "noisy input", "jpeg": "JPEG input", "real": "input"}[self.task]

    @property
    def is_scaled(self) -> bool:
        """Whether its level is the enlargement."""
        return self.level == "scale"

    @property
    def has_ground_truth(self) -> bool:
        """Whether results are compared with an original; photographs as they are have none."""
        return self.task != "real"


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("classic-sr", "Super-resolution", "sr", SETS["classic-sr"], "scale", (2, 3, 4), 3, True),
        Suite("light-sr", "Lightweight super-resolution", "sr", SETS["light-sr"], "scale", (2, 3, 4), 3, True),
        Suite("color-dn", "Colour denoising", "denoise", SETS["color-dn"], "sigma", (15, 25, 50), 3, False),
        Suite("gray-car", "JPEG artefact removal, grey", "jpeg", SETS["gray-car"], "quality", (10, 30, 40), 1, True),
        Suite("real", "Real photographs", "real", SETS["real"], "scale", (), 3, True),
    )
}
