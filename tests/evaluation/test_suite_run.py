"""The run: every image once, however often it is stopped, and one bad image does not keep the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import mambair
from mambair.data import build_dataset
from mambair.evaluation.candidates import Candidate, FunctionCandidate, InputCandidate, NetworkCandidate, Sample
from mambair.evaluation.evaluate import measure
from mambair.evaluation.results import Run, SetResult
from mambair.evaluation.score_cache import NAME, ScoreCache
from mambair.evaluation.suite_run import run_suite
from mambair.evaluation.suites import SUITES, Suite
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint

SR, DN = SUITES["classic-sr"], SUITES["color-dn"]


class Counting(Candidate):
    """Notes what it was asked for."""

    parameters = 7

    def __init__(self, name: str = "counting", identity: str = "1", fault: Exception | None = None) -> None:
        self.name, self.identity, self.fault = name, identity, fault
        self.asked: list[str] = []

    def __call__(self, sample: Sample) -> Tensor:
        self.asked.append(sample.image)
        if self.fault is not None and sample.image == "im2":
            raise self.fault
        return sample.lq.repeat_interleave(2, 1).repeat_interleave(2, 2)


def run(
    data: Path,
    folder: Path,
    *candidates: Candidate,
    suite: Suite = SR,
    sets: tuple[str, ...] = ("Set5",),
    levels: tuple[int, ...] = (2,),
) -> Run:
    baseline = InputCandidate(suite.input_name, is_enlarged=suite.task == "sr")
    return run_suite(Run(suite.title, [baseline, *candidates], folder, suite=suite), data, sets, levels, progress=False)


def reused(measured: Run) -> int:
    return sum(image.is_reused for image in measured.images())


def test_numbers_are_those_of_an_option_file(data: Path, enlarging: Path, tmp_path: Path) -> None:
    candidate = NetworkCandidate("net", enlarging, device="cpu")
    measured = run(data, tmp_path / "out", candidate)
    dataset = build_dataset(
        {
            "type": "PairedImageDataset",
            "phase": "test",
            "scale": 2,
            "dataroot_gt": str(data / "set5/HR"),
            "dataroot_lq": str(data / "set5/LR_bicubic/X2"),
            "filename_tmpl": "{}x2",
        }
    )
    net = mambair.load(enlarging).eval()
    expected = measure(SetResult("Set5", dataset, SR.metrics(2)), [FunctionCandidate("net", net)])
    (result,) = measured.sets
    assert [image.scores for image in result.of("net")] == [image.scores for image in expected.of("net")]
    assert measured.is_complete and reused(measured) == 0
    assert list(result.names.values()) == [f"im{index}" for index in range(5)], "named by their ground truth"
    for image in measured.images():
        assert image.picture is not None
        assert Image.open(tmp_path / "out" / image.picture).size == (24, 24)
        assert image.seconds > 0


def test_a_second_run_measures_nothing(data: Path, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before, after = run(data, tmp_path, first), run(data, tmp_path, second)
    assert len(first.asked) == 5 and second.asked == []
    assert [replace(image, is_reused=True) for image in before.images()] == after.images()
    assert reused(after) == 10


def test_what_has_changed_is_measured_again(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, Counting())
    Image.new("RGB", (24, 24)).save(data / "set5/HR/im3.png")
    candidate = Counting()
    measured = run(data, tmp_path, candidate)
    assert candidate.asked == ["im3"]
    picture = next(image.picture for image in measured.sets[0].of("counting") if image.image == "im1")
    (tmp_path / str(picture)).unlink()
    candidate = Counting()
    run(data, tmp_path, candidate)
    assert candidate.asked == ["im1"], "its restored image is gone"
    candidate = Counting(identity="2")
    run(data, tmp_path, candidate)
    assert len(candidate.asked) == 5, "other weights under the same name"
    candidate = Counting()
    run(data, tmp_path, candidate)
    assert not candidate.asked, "they restored the same pixels"
    picture_of_others = tmp_path / str(measured.sets[0].of("counting")[0].picture)
    Image.new("RGB", (24, 24)).save(picture_of_others)
    run(data, tmp_path, candidate)
    assert candidate.asked == ["im0"], "the restored image is that of other weights"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("out of\nmemory"), "Set5, im2, counting: out of"),
        (MemoryError(), "Set5, im2, counting: MemoryError"),
        (ValueError("no"), "Set5, im2, counting: no"),
    ],
    ids=["runtime", "memory", "value"],
)
def test_one_bad_image(data: Path, tmp_path: Path, fault: Exception, message: str) -> None:
    measured = run(data, tmp_path, Counting(fault=fault))
    assert measured.failed() == [message] and not measured.is_complete
    assert len(measured.images()) == 9
    candidate = Counting()
    assert run(data, tmp_path, candidate).is_complete
    assert candidate.asked == ["im2"], "what failed is tried again"


def test_a_result_of_the_wrong_size(data: Path, tmp_path: Path) -> None:
    measured = run(data, tmp_path, Counting(), levels=(3,))
    assert "im0, counting: the result is (3, 16, 16), its ground truth (3, 24, 24) (C, H, W)" in measured.failed()[0]


def test_damaged_images_and_missing_sets(data: Path, tmp_path: Path) -> None:
    (data / "set5/HR/im1.png").write_bytes(b"no image")
    measured = run(data, tmp_path, sets=("Set5", "Urban100", "Set14"))
    assert list(measured.missing) == ["Urban100"]
    assert "Urban100: no folder Urban100" in measured.missing["Urban100"]
    (failed,) = measured.failed()
    assert "im1" in failed
    assert [len(result.of("bicubic")) for result in measured.sets] == [4, 1]


def test_several_networks_and_scales(data: Path, tmp_path: Path, weights: Callable[..., Path]) -> None:
    two, three = (weights(f"x{s}", upscale=s, upsampler="pixelshuffledirect") for s in (2, 3))
    candidates = [NetworkCandidate(path.stem, path, device="cpu") for path in (two, three)]
    for candidate in candidates:
        candidate.check_fits(SR)
    measured = run(data, tmp_path, *candidates, sets=("Set5", "Set14"), levels=(2, 3))
    names = {(result.level, name) for result in measured.sets for name in result.images}
    assert names == {(2, "bicubic"), (2, "x2"), (3, "bicubic"), (3, "x3")}
    assert len(measured.images()) == 2 * 2 * 6


def test_noise_of_two_levels(data: Path, tmp_path: Path) -> None:
    measured = run(data, tmp_path, suite=DN, sets=("McMaster",), levels=(15, 50))
    means = [result.mean("noisy input")["psnr"] for result in measured.sets]
    assert means[0] > means[1] + 8


def test_routing_noise_is_repeatable(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "num_heads": [2], "upscale": 2, "upsampler": "pixelshuffledirect"}
    path = tmp_path / "v2.safetensors"
    write_checkpoint(path, ARCH_REGISTRY.get("MambaIRv2")(**kwargs).state_dict(), {})
    runs = []
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        measured = run(data, tmp_path / name, NetworkCandidate("v2", path, device="cpu"))
        runs.append([image.scores for image in measured.sets[0].of("v2")])
    assert len(runs[0]) == 5 and runs[0] == runs[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(data: Path, tmp_path: Path, enlarging: Path, repository: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "mambair", "benchmark", "--suite", "classic-sr", "--data", str(data), "--quiet"]
    command += ["--weights", str(enlarging), "--sets", "Set5", "--output", str(folder)]
    lines: list[int] = []
    for _ in range(12):
        with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            began = time.monotonic()
            seen = len(ScoreCache(folder / NAME))
            while process.poll() is None and time.monotonic() < began + 120:
                if len(ScoreCache(folder / NAME)) >= seen + 2:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
            process.communicate()
        lines.append(len(ScoreCache(folder / NAME)))
        if process.returncode == 0:
            break
    assert process.returncode == 0, lines
    assert len(lines) > 2, "the run was killed at least twice"
    journal = (folder / NAME).read_text(encoding="utf-8").splitlines()
    assert len(journal) == len(set(journal)) == 10, "no image was measured twice"
    assert (folder / "report.html").is_file()
