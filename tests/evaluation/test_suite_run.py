"""The run: every image once, however often it is stopped, and one bad image does not keep the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mambair.data import build_dataset
from mambair.evaluation.candidates import InputCandidate, NetworkCandidate, Sample
from mambair.evaluation.evaluate import evaluate
from mambair.evaluation.score_cache import Journal
from mambair.evaluation.suite_run import JOURNAL, Plan, run
from mambair.evaluation.suites import SUITES

SR, DN = SUITES["classic-sr"], SUITES["color-dn"]


class Counting:
    """A method that notes what it was asked for."""

    parameters: int | None = 7
    levels: tuple[int, ...] | None = None
    published_network: str | None = None

    def __init__(self, name: str = "counting", identity: str = "1", fault: Exception | None = None) -> None:
        self.name, self.identity, self.fault = name, identity, fault
        self.asked: list[str] = []

    def __call__(self, sample: Sample) -> Tensor:
        self.asked.append(sample.image)
        if self.fault is not None and sample.image == "im2":
            raise self.fault
        return sample.lq.repeat_interleave(2, 1).repeat_interleave(2, 2)


def plan(data: Path, folder: Path, *methods, sets: tuple[str, ...] = ("Set5",), levels: tuple[int, ...] = (2,)) -> Plan:
    return Plan(SR, data, sets, levels, [InputCandidate(SR), *methods], folder)


def test_numbers_are_those_of_the_evaluation(data: Path, enlarging: Path, tmp_path: Path) -> None:
    method = NetworkCandidate("net", enlarging, SR, device="cpu")
    results = run(plan(data, tmp_path / "out", method), progress=False)
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
    net = method._restorer.net
    expected = evaluate(lambda lq: net(lq), dataset, SR.metrics(2), progress=False)
    found = [m for m in results.measurements if m.method == "net"]
    assert [(m.psnr, m.ssim) for m in found] == [(row["psnr"], row["ssim"]) for row in expected.per_image]
    assert results.is_whole and results.reused == 0
    for m in results.measurements:
        assert Image.open(tmp_path / "out" / m.picture).size == (24, 24)
        assert m.seconds > 0


def test_a_second_run_measures_nothing(data: Path, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before = run(plan(data, tmp_path, first), progress=False)
    after = run(plan(data, tmp_path, second), progress=False)
    assert len(first.asked) == 5 and second.asked == []
    assert after.measurements == before.measurements
    assert after.reused == len(after.measurements) == 10


def test_what_has_changed_is_measured_again(data: Path, tmp_path: Path) -> None:
    run(plan(data, tmp_path, Counting()), progress=False)
    Image.new("RGB", (24, 24)).save(data / "set5/HR/im3.png")
    method = Counting()
    results = run(plan(data, tmp_path, method), progress=False)
    assert method.asked == ["im3"]
    (tmp_path / next(m for m in results.measurements if m.image == "im1" and m.method == "counting").picture).unlink()
    method = Counting()
    run(plan(data, tmp_path, method), progress=False)
    assert method.asked == ["im1"], "its restored image is gone"
    method = Counting(identity="2")
    run(plan(data, tmp_path, method), progress=False)
    assert len(method.asked) == 5, "other weights under the same name"


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
    method = Counting(fault=fault)
    results = run(plan(data, tmp_path, method), progress=False)
    assert results.failed == [message] and not results.is_whole
    assert len(results.measurements) == 9
    method = Counting()
    assert run(plan(data, tmp_path, method), progress=False).is_whole
    assert method.asked == ["im2"], "what failed is tried again"


def test_a_result_of_the_wrong_size(data: Path, tmp_path: Path) -> None:
    results = run(plan(data, tmp_path, Counting(), levels=(3,)), progress=False)
    assert "im0, counting: the result is (3, 16, 16), its ground truth (3, 24, 24) (C, H, W)" in results.failed[0]


def test_damaged_images_and_missing_sets(data: Path, tmp_path: Path) -> None:
    (data / "set5/HR/im1.png").write_bytes(b"no image")
    results = run(plan(data, tmp_path, sets=("Set5", "Urban100", "Set14")), progress=False)
    assert list(results.missing) == ["Urban100"]
    assert "Urban100: no folder Urban100" in results.missing["Urban100"]
    assert len(results.failed) == 1 and "im1" in results.failed[0]
    assert {m.dataset for m in results.measurements} == {"Set5", "Set14"}


def test_several_networks_and_scales(data: Path, tmp_path: Path, weights: Callable[..., Path]) -> None:
    two, three = (weights(f"x{s}", upscale=s, upsampler="pixelshuffledirect") for s in (2, 3))
    methods = [NetworkCandidate(path.stem, path, SR, device="cpu") for path in (two, three)]
    results = run(plan(data, tmp_path, *methods, sets=("Set5", "Set14"), levels=(2, 3)), progress=False)
    measured = {(m.level, m.method) for m in results.measurements}
    assert measured == {(2, "bicubic"), (2, "x2"), (3, "bicubic"), (3, "x3")}
    assert len(results.measurements) == 2 * 2 * 6


def test_noise_of_two_levels(data: Path, tmp_path: Path) -> None:
    results = run(Plan(DN, data, ["McMaster"], [15, 50], [InputCandidate(DN)], tmp_path), progress=False)
    means = [np.mean([m.psnr for m in results.measurements if m.level == level]) for level in (15, 50)]
    assert means[0] > means[1] + 8


def test_routing_noise_is_repeatable(data: Path, tmp_path: Path) -> None:
    from mambair.registry import ARCH_REGISTRY
    from mambair.weights.checkpoint import write_checkpoint

    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "num_heads": [2], "upscale": 2, "upsampler": "pixelshuffledirect"}
    path = tmp_path / "v2.safetensors"
    write_checkpoint(path, ARCH_REGISTRY.get("MambaIRv2")(**kwargs).state_dict(), {})
    runs = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)
        method = NetworkCandidate("v2", path, SR, device="cpu")
        runs.append([m.psnr for m in run(plan(data, tmp_path / name, method), progress=False).measurements])
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(data: Path, tmp_path: Path, enlarging: Path, repository: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "mambair", "benchmark", "--suite", "classic-sr", "--data", str(data), "--quiet"]
    command += ["--weights", str(enlarging), "--sets", "Set5", "--output", str(folder)]
    lines: list[int] = []
    for _ in range(12):
        with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            began = time.monotonic()
            seen = len(Journal(folder / JOURNAL))
            while process.poll() is None and time.monotonic() < began + 120:
                if len(Journal(folder / JOURNAL)) >= seen + 2:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
            process.communicate()
        lines.append(len(Journal(folder / JOURNAL)))
        if process.returncode == 0:
            break
    assert process.returncode == 0, lines
    assert len(lines) > 2, "the run was killed at least twice"
    journal = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    assert len(journal) == len(set(journal)) == 10, "no image was measured twice"
    assert (folder / "report.html").is_file()
