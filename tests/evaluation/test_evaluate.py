"""The evaluator: what is measured, what is saved, and what it says when it cannot."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mambair.data import build_dataset
from mambair.evaluation.evaluate import Evaluation, dataset_name, evaluate, to_uint8
from mambair.images.resize import imresize
from mambair.metrics import calculate_psnr, calculate_ssim

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True, "better": "higher"},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
}


class Pairs:
    """A data set in memory: lq is gt reduced by taking every second pixel."""

    def __init__(self, sizes: list[tuple[int, int]], *, channels: int = 3, names: list[str] | None = None) -> None:
        self.opt = {"name": "memory"}
        generator = torch.Generator().manual_seed(0)
        self.images = [torch.rand(channels, *size, generator=generator) for size in sizes]
        self.names = names or [f"set/image{index}.png" for index in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        gt = self.images[index]  # beyond the end this raises IndexError, which the evaluator must never rely on
        return {"lq": gt[:, ::2, ::2], "gt": gt, "lq_path": self.names[index], "gt_path": self.names[index]}


def enlarge(lq: Tensor) -> Tensor:
    """Pixel repetition by 2, a little out of range and never exactly on a code."""
    assert lq.ndim == 4
    assert not torch.is_grad_enabled()
    return lq.repeat_interleave(2, 2).repeat_interleave(2, 3) * 1.1 - 0.04


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
def test_values_are_those_of_the_metrics(channels: int) -> None:
    dataset = Pairs([(24, 30), (16, 18)], channels=channels)
    evaluation = evaluate(enlarge, dataset, METRICS, progress=False)
    assert evaluation.dataset == "memory"
    assert [image["name"] for image in evaluation.per_image] == ["image0", "image1"]
    for gt, image in zip(dataset.images, evaluation.per_image, strict=True):
        with torch.no_grad():
            result = enlarge(gt[None, :, ::2, ::2])[0]
        # BasicSR: clip, times 255, round, BGR
        bgr, bgr_gt = (
            np.rint(np.clip(each.numpy(), 0, 1) * np.float32(255)).astype(np.uint8)[::-1].transpose(1, 2, 0)
            for each in (result, gt)
        )
        assert image["psnr"] == calculate_psnr(bgr, bgr_gt, 2, test_y_channel=True)
        assert image["ssim"] == calculate_ssim(bgr, bgr_gt, 0)
    for metric in METRICS:
        assert evaluation.mean[metric] == pytest.approx(np.mean([image[metric] for image in evaluation.per_image]))


@pytest.mark.parametrize(("scale", "psnr", "ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)])
def test_bicubic_on_set5_is_what_papers_print(development_data: Path, scale: int, psnr: float, ssim: float) -> None:
    """The whole chain: files, pairs, luma, crop border, rounding, means.

    Papers enlarge rounded luma, where this enlarges RGB and rounds that: 0.03 dB and 0.001 allow for it. RGB in place
    of luma would be 1.7 dB off, luma of full range 1.3 dB.
    """
    folder = development_data / "data" / "test" / "Set5"
    dataset = build_dataset(
        {
            "type": "PairedImageDataset",
            "name": "Set5",
            "phase": "test",
            "scale": scale,
            "dataroot_gt": str(folder / "HR"),
            "dataroot_lq": str(folder / f"LRbicx{scale}"),
        }
    )

    def bicubic(lq: Tensor) -> Tensor:
        enlarged = imresize(np.ascontiguousarray(lq[0].permute(1, 2, 0).numpy()), scale)
        return torch.from_numpy(np.ascontiguousarray(enlarged)).permute(2, 0, 1)[None]

    metrics = {
        name: {"type": f"calculate_{name}", "crop_border": scale, "test_y_channel": True} for name in ("psnr", "ssim")
    }
    evaluation = evaluate(bicubic, dataset, metrics, progress=False)
    assert evaluation.mean["psnr"] == pytest.approx(psnr, abs=0.03)
    assert evaluation.mean["ssim"] == pytest.approx(ssim, abs=0.001)


def test_perfect_restoration() -> None:
    dataset = Pairs([(16, 16)])
    evaluation = evaluate(lambda lq: dataset.images[0][None], dataset, METRICS, progress=False)
    assert evaluation.mean == {"psnr": math.inf, "ssim": pytest.approx(1.0)}


def test_images_are_saved_exactly(tmp_path: Path) -> None:
    for channels, mode in ((3, "RGB"), (1, "L")):
        folder = tmp_path / mode / "new"
        dataset = Pairs([(14, 20)], channels=channels)
        evaluate(enlarge, dataset, {}, save_folder=folder, suffix="x2", progress=False)
        assert [path.name for path in folder.iterdir()] == ["image0_x2.png"], "no temporary files are left"
        saved = Image.open(folder / "image0_x2.png")
        assert saved.mode == mode
        with torch.no_grad():
            expected = to_uint8(enlarge(dataset[0]["lq"][None]))
        assert np.array_equal(np.asarray(saved).reshape(expected.shape), expected)


def test_name_without_suffix(tmp_path: Path) -> None:
    evaluate(enlarge, Pairs([(14, 20)]), {}, save_folder=tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["image0.png"]


def test_equal_stems_stay_apart(tmp_path: Path) -> None:
    names = ["data/a/one.png", "data/b/one.png", "data/b/one.jpg"]
    dataset = Pairs([(14, 14)] * 3, names=names)
    evaluation = evaluate(enlarge, dataset, METRICS, save_folder=tmp_path, progress=False)
    assert [image["name"] for image in evaluation.per_image] == ["one", "b_one", "data_b_one"]
    assert len(list(tmp_path.iterdir())) == 3


def test_numbers_that_are_not_finite(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    dataset = Pairs([(16, 16), (16, 16)])

    def broken(lq: Tensor) -> Tensor:
        restored = enlarge(lq)
        if torch.equal(lq[0], dataset[1]["lq"]):
            restored[0, 0, 3, 3] = math.nan
        return restored

    with caplog.at_level(logging.WARNING, "mambair.evaluation.evaluate"):
        evaluation = evaluate(broken, dataset, METRICS, save_folder=tmp_path, progress=False)
    assert math.isfinite(evaluation.per_image[0]["psnr"])
    assert math.isnan(evaluation.per_image[1]["psnr"])
    assert math.isnan(evaluation.mean["ssim"])
    assert "image1" in caplog.text
    assert np.asarray(Image.open(tmp_path / "image1.png"))[3, 3, 0] == 0


class WithoutTruth(Pairs):
    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {"lq": item["lq"], "lq_path": item["lq_path"]}


def test_without_ground_truth_images_are_only_saved(tmp_path: Path) -> None:
    evaluation = evaluate(enlarge, WithoutTruth([(14, 14)]), {}, save_folder=tmp_path, progress=False)
    assert evaluation.per_image == [{"name": "image0"}]
    assert evaluation.mean == {}
    assert (tmp_path / "image0.png").is_file()


FAULTS = {
    "no-truth": (WithoutTruth([(14, 14)]), METRICS, "image0: metrics need the ground truth.*set dataroot_gt"),
    "other-size": (Pairs([(15, 15)]), METRICS, r"the result is \(3, 16, 16\) and its ground truth \(3, 15, 15\)"),
    "too-small": (Pairs([(8, 8)]), METRICS, "image0: img: must keep at least 11x11 pixels"),
    "name": (Pairs([(14, 14)]), {"name": METRICS["psnr"]}, "'name' cannot be a metric's name"),
}


@pytest.mark.parametrize(("dataset", "metrics", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_name_the_image(dataset: Pairs, metrics: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        evaluate(enlarge, dataset, metrics, progress=False)


def test_empty_data_set() -> None:
    evaluation = evaluate(enlarge, Pairs([]), METRICS, progress=False)
    assert evaluation == Evaluation("memory", METRICS, [])
    assert math.isnan(evaluation.mean["psnr"])


def test_options_are_kept_and_left_alone() -> None:
    options = {name: dict(each) for name, each in METRICS.items()}
    evaluation = evaluate(enlarge, Pairs([(14, 14)]), options, progress=False)
    assert options == METRICS
    assert evaluation.metrics == METRICS


def test_name_of_a_data_set_without_options() -> None:
    assert dataset_name([]) == "list"
    assert dataset_name(Pairs([])) == "memory"


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(enlarge, Pairs([(14, 14)]), METRICS, progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "memory" in told.err


def test_what_is_cached_during_evaluation_can_be_trained_on() -> None:
    cache: list[Tensor] = []

    def caching(lq: Tensor) -> Tensor:
        cache.append(torch.ones(1))
        return enlarge(lq)

    evaluate(caching, Pairs([(14, 14)]), {}, progress=False)
    weight = torch.ones(1, requires_grad=True)
    (weight * cache[0]).sum().backward()
    assert weight.grad is not None


class Kept:
    """A memory that notes what it is asked."""

    def __init__(self) -> None:
        self.scores: dict[bytes, dict[str, float]] = {}

    def find(self, lq: Tensor, gt: Tensor) -> dict[str, float] | None:
        return self.scores.get(lq.contiguous().numpy().tobytes())

    def add(self, lq: Tensor, gt: Tensor, scores: Any) -> None:
        self.scores[lq.contiguous().numpy().tobytes()] = dict(scores)


def test_what_is_remembered_is_not_restored_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(lq: Tensor) -> Tensor:
        asked.append(1)
        return enlarge(lq)

    dataset, memory = Pairs([(24, 30), (16, 18)]), Kept()
    first = evaluate(counted, dataset, METRICS, progress=False, memory=memory)
    again = evaluate(counted, dataset, METRICS, progress=False, memory=memory)
    assert again == first and len(asked) == 2
    evaluate(counted, dataset, METRICS, progress=False, memory=memory, save_folder=tmp_path)
    assert len(asked) == 4, "images that are to be saved and are not there are restored"
    evaluate(counted, dataset, METRICS, progress=False, memory=memory, save_folder=tmp_path)
    assert len(asked) == 4
    evaluate(counted, dataset, {"psnr": METRICS["psnr"]}, progress=False, memory=memory)
    assert len(asked) == 6, "other metrics are another measurement"
