"""The evaluation loop: what is measured, written and reused, and what it says when something fails."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mambair.data import build_dataset
from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.candidates import Candidate, FunctionCandidate, Sample
from mambair.evaluation.evaluate import Storage, measure
from mambair.evaluation.results import SetResult
from mambair.evaluation.score_cache import ScoreCache
from mambair.images.resize import imresize
from mambair.metrics import calculate_psnr, calculate_ssim
from mambair.registry import METRIC_REGISTRY

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


def evaluate(
    restore: Callable[[Tensor], Tensor],
    dataset: Any,
    metrics: dict[str, Any],
    *,
    folder: Path | None = None,
    suffix: str = "",
    cache: ScoreCache | None = None,
    **options: Any,
) -> SetResult:
    """Measure one function, named "net"."""
    storage = Storage(folder or Path(), lambda _, image: f"{image}{suffix}.png" if folder else None, cache)
    candidate = FunctionCandidate("net", restore, identity="1")
    return measure(SetResult("memory", dataset, metrics), [candidate], storage=storage, **options)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
def test_values_are_those_of_the_metrics(channels: int) -> None:
    dataset = Pairs([(24, 30), (16, 18)], channels=channels)
    result = evaluate(enlarge, dataset, METRICS)
    assert list(result.names.values()) == [image.image for image in result.of("net")] == ["image0", "image1"]
    for gt, image in zip(dataset.images, result.of("net"), strict=True):
        with torch.no_grad():
            restored = enlarge(gt[None, :, ::2, ::2])[0]
        # BasicSR: clip, times 255, round, BGR
        bgr, bgr_gt = (
            np.rint(np.clip(each.numpy(), 0, 1) * np.float32(255)).astype(np.uint8)[::-1].transpose(1, 2, 0)
            for each in (restored, gt)
        )
        assert image.scores["psnr"] == calculate_psnr(bgr, bgr_gt, 2, test_y_channel=True)
        assert image.scores["ssim"] == calculate_ssim(bgr, bgr_gt, 0)
    for metric in METRICS:
        expected = np.mean([image.scores[metric] for image in result.of("net")])
        assert result.mean("net")[metric] == pytest.approx(expected)


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
    mean = evaluate(bicubic, dataset, metrics).mean("net")
    assert mean["psnr"] == pytest.approx(psnr, abs=0.03)
    assert mean["ssim"] == pytest.approx(ssim, abs=0.001)


def test_perfect_restoration() -> None:
    dataset = Pairs([(16, 16)])
    result = evaluate(lambda lq: dataset.images[0][None], dataset, METRICS)
    assert result.mean("net") == {"psnr": math.inf, "ssim": pytest.approx(1.0)}


def test_images_are_saved_exactly(tmp_path: Path) -> None:
    for channels, mode in ((3, "RGB"), (1, "L")):
        folder = tmp_path / mode / "new"
        dataset = Pairs([(14, 20)], channels=channels)
        evaluate(enlarge, dataset, {}, folder=folder, suffix="_x2")
        assert [path.name for path in folder.iterdir()] == ["image0_x2.png"], "no temporary files are left"
        saved = Image.open(folder / "image0_x2.png")
        assert saved.mode == mode
        with torch.no_grad():
            expected = to_pixels(enlarge(dataset[0]["lq"][None]))
        assert np.array_equal(np.asarray(saved).reshape(expected.shape), expected)


def test_name_without_suffix(tmp_path: Path) -> None:
    evaluate(enlarge, Pairs([(14, 20)]), {}, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image0.png"]


def test_equal_stems_stay_apart(tmp_path: Path) -> None:
    names = ["data/a/one.png", "data/b/one.png", "data/b/one.jpg"]
    dataset = Pairs([(14, 14)] * 3, names=names)
    assert evaluate(enlarge, dataset, METRICS, folder=tmp_path).names == {0: "one", 1: "b_one", 2: "data_b_one"}
    assert len(list(tmp_path.iterdir())) == 3


def test_numbers_that_are_not_finite(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    dataset = Pairs([(16, 16), (16, 16)])

    def broken(lq: Tensor) -> Tensor:
        restored = enlarge(lq)
        if torch.equal(lq[0], dataset[1]["lq"]):
            restored[0, 0, 3, 3] = math.nan
        return restored

    with caplog.at_level(logging.WARNING, "mambair.evaluation.evaluate"):
        result = evaluate(broken, dataset, METRICS, folder=tmp_path)
    first, second = result.of("net")
    assert math.isfinite(first.scores["psnr"]) and math.isnan(second.scores["psnr"])
    assert math.isnan(result.mean("net")["ssim"])
    assert "image1: the output of net has values that are not finite; its metrics are NaN" in caplog.text
    assert np.asarray(Image.open(tmp_path / "image1.png"))[3, 3, 0] == 0


class WithoutTruth(Pairs):
    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {"lq": item["lq"], "lq_path": item["lq_path"]}


def test_without_ground_truth_images_are_only_saved(tmp_path: Path) -> None:
    result = evaluate(enlarge, WithoutTruth([(14, 14)]), {}, folder=tmp_path)
    assert [(image.image, image.scores) for image in result.of("net")] == [("image0", {})]
    assert result.mean("net") == {} and not result.failed
    assert (tmp_path / "image0.png").is_file()


FAILURES = {
    "no-truth": (WithoutTruth([(14, 14)]), "image0, net: metrics need the ground truth.*set dataroot_gt"),
    "other-size": (Pairs([(15, 15)]), r"net: the result is \(3, 16, 16\), its ground truth \(3, 15, 15\)"),
    "too-small": (Pairs([(8, 8)]), "memory, net: ssim failed on 1 of 1 images; image0: img: must keep at least 11x11"),
}


@pytest.mark.parametrize(("dataset", "text"), FAILURES.values(), ids=FAILURES.keys())
def test_failures_name_the_image(dataset: Pairs, text: str) -> None:
    result = evaluate(enlarge, dataset, {"ssim": METRICS["ssim"]})
    (line,) = result.failed
    assert re.search(text, line)
    assert result.mean("net") == {}


def test_a_metric_that_raises_costs_its_own_values_only() -> None:
    @METRIC_REGISTRY.register(name="raises_for_tests")
    def raises(img: np.ndarray, img2: np.ndarray) -> float:
        if img.shape[0] == 16:
            raise KeyError("of this metric")
        return 1.0

    metrics = {"mine": {"type": "raises_for_tests"}, **METRICS}
    result = evaluate(enlarge, Pairs([(16, 16), (24, 24), (16, 20)]), metrics)
    assert result.failed == ["memory, net: mine failed on 2 of 3 images; image0: 'of this metric'"]
    assert [list(image.scores) for image in result.of("net")] == [
        ["psnr", "ssim"],
        ["mine", "psnr", "ssim"],
        ["psnr", "ssim"],
    ]
    assert result.mean("net")["mine"] == 1.0 and set(result.whole_mean("net")) == {"psnr", "ssim"}


def test_an_image_that_cannot_be_read_or_restored_costs_itself_only() -> None:
    class Damaged(Pairs):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 1:
                raise ValueError("b.png: no image")
            return super().__getitem__(index)

    dataset = Damaged([(16, 16), (16, 16), (18, 18), (20, 20)])

    def fails(lq: Tensor) -> Tensor:
        if lq.shape[-1] == 9:
            raise RuntimeError("out of\nmemory")
        return enlarge(lq)

    result = evaluate(fails, dataset, METRICS)
    assert result.failed == ["memory, image 2: b.png: no image", "memory, image2, net: out of"]
    assert result.names == {0: "image0", 2: "image2", 3: "image3"}
    assert [image.image for image in result.of("net")] == ["image0", "image3"]
    assert result.whole_mean("net") == {}


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def wrong(lq: Tensor) -> Tensor:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        evaluate(wrong, Pairs([(14, 14)]), {})


def test_empty_data_set() -> None:
    result = evaluate(enlarge, Pairs([]), METRICS)
    assert (result.of("net"), result.names, result.mean("net")) == ([], {}, {})


def test_options_are_left_alone() -> None:
    options = {name: dict(each) for name, each in METRICS.items()}
    evaluate(enlarge, Pairs([(14, 14)]), options)
    assert options == METRICS


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_several_processes_have_every_image_once(processes: int) -> None:
    dataset = Pairs([(14, 14 + 2 * index) for index in range(5)])
    shares = [evaluate(enlarge, dataset, METRICS, share=slice(rank, None, processes)) for rank in range(processes)]
    assert sorted(number for share in shares for number in share.images["net"]) == list(range(5))
    whole = evaluate(enlarge, dataset, METRICS).images["net"]
    for share in shares:
        for number, image in share.images["net"].items():
            assert image.scores == whole[number].scores


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(enlarge, Pairs([(14, 14)]), METRICS, progress="label")
    told = capsys.readouterr()
    assert told.out == "" and "label" in told.err


def test_what_is_cached_during_evaluation_can_be_trained_on() -> None:
    cache: list[Tensor] = []

    def caching(lq: Tensor) -> Tensor:
        cache.append(torch.ones(1))
        return enlarge(lq)

    evaluate(caching, Pairs([(14, 14)]), {})
    weight = torch.ones(1, requires_grad=True)
    (weight * cache[0]).sum().backward()
    assert weight.grad is not None


def test_random_networks_repeat_themselves_and_leave_the_generator_alone() -> None:
    def noisy(lq: Tensor) -> Tensor:
        return enlarge(lq) + 0.1 * torch.randn(1)

    torch.manual_seed(5)
    first = evaluate(noisy, Pairs([(24, 24), (16, 16)]), METRICS)
    drawn = torch.rand(1)
    second = evaluate(noisy, Pairs([(24, 24), (16, 16)]), METRICS)
    assert [image.scores for image in first.of("net")] == [image.scores for image in second.of("net")]
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))


def test_what_was_measured_is_not_restored_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(lq: Tensor) -> Tensor:
        asked.append(1)
        return enlarge(lq)

    dataset, folder = Pairs([(24, 30), (16, 18)]), tmp_path / "images"

    def run(metrics: dict[str, Any], **options: Any) -> SetResult:
        return evaluate(counted, dataset, metrics, cache=ScoreCache(tmp_path / "journal.jsonl"), **options)

    first, again = run(METRICS), run(METRICS)
    assert len(asked) == 2 and again.mean("net") == first.mean("net")
    assert all(image.is_reused for image in again.of("net")) and not any(image.is_reused for image in first.of("net"))
    run(METRICS, folder=folder)
    assert len(asked) == 4, "images that are to be saved and are not there are restored"
    run(METRICS, folder=folder)
    assert len(asked) == 4
    run({"psnr": METRICS["psnr"]})
    assert len(asked) == 6, "other metrics are another measurement"
    dataset.images[0] = dataset.images[0].flip(1)
    run(METRICS)
    assert len(asked) == 7, "other pixels are another image"


class Prepared(Candidate):
    """Notes in which order it is called."""

    name = "prepared"

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def prepare(self, lq: Tensor) -> None:
        self.calls.append(("prepare", lq.shape[-1]))

    def __call__(self, sample: Sample) -> Tensor:
        self.calls.append((sample.image, sample.size[1] if sample.size else 0))
        return sample.lq


def test_each_candidate_is_prepared_once_before_the_clock_counts() -> None:
    candidate = Prepared()
    measure(SetResult("memory", Pairs([(14, 14), (16, 16)]), {}), [candidate])
    assert candidate.calls == [("prepare", 7), ("image0", 14), ("image1", 16)]
