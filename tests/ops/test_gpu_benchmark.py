"""The GPU benchmark without a GPU: tiny cases on the CPU, the published driving code around a plain kernel."""

from __future__ import annotations

import argparse
import importlib

import pytest
import torch

ONCE = argparse.Namespace(repeat=1, seconds=0.0, rehearse=False)


@pytest.fixture
def benchmark(repository, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module("scan_on_gpu")


CASES = {
    "four-directions": {"H": 3, "W": 5, "D": 4, "N": 2, "R": 1, "K": 4},
    "one-direction": {"H": 2, "W": 7, "D": 3, "N": 1, "R": 2, "K": 1},
    "sequence": {"H": 1, "W": 6, "D": 8, "N": 2, "R": 0, "K": 1},
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES.keys())
def test_all_contenders_agree_and_are_measured(sizes, dtype, benchmark, capsys) -> None:
    from contenders.official_gpu import plain_kernel

    def kernel(*arguments):
        u, *rest = (t.float() if isinstance(t, torch.Tensor) else t for t in arguments)
        return plain_kernel(u, *rest).to(arguments[0].dtype)

    floor = benchmark.Floor(exponentials=1e12, bytes=1e12)
    rows = benchmark.measure_case(
        "X", benchmark.Case("tiny", 1, **sizes), dtype, kernel, floor, ONCE, "cpu", ("torch",)
    )
    assert [(r.task, r.contender) for r in rows] == [
        (task, name) for task in ("forward", "both") for name in ("torch", "mamba_ssm")
    ]
    assert all(row.milliseconds > 0 and row.floor > 0 for row in rows)
    assert len(benchmark.lines(rows)) == 4
    assert benchmark.HEADER.splitlines()[0].count("|") == benchmark.lines(rows)[0].count("|")
    assert capsys.readouterr().err == ""


def test_a_contender_with_other_numbers_is_not_timed(benchmark, capsys) -> None:
    case = benchmark.Case("tiny", 1, H=2, W=3, D=2, N=1, R=1, K=1)
    floor = benchmark.Floor(1e12, 1e12)
    rows = benchmark.measure_case("X", case, "fp32", lambda u, *_: 2 * u, floor, ONCE, "cpu", ("torch",))
    assert {row.contender for row in rows} == {"torch"}
    assert "mamba_ssm differs from torch" in capsys.readouterr().err


def test_whole_networks(benchmark, monkeypatch) -> None:
    tiny = {
        "embed_dim": 6,
        "depths": [1],
        "d_state": 2,
        "mlp_ratio": 1.0,
        "upscale": 2,
        "upsampler": "pixelshuffledirect",
    }
    monkeypatch.setitem(benchmark.NETWORKS, "tiny", ("MambaIR", tiny))
    rows = benchmark.network_rows("tiny", "fp32", ["torch"], ONCE, "cpu", side=8, training=(2, 8))
    assert [(r.task, r.contender, r.images) for r in rows] == [("inference", "torch", 1), ("training", "torch", 2)]


def test_floor_by_hand(benchmark) -> None:
    case = benchmark.Case("tiny", 1, H=10, W=10, D=10, N=8, R=1, K=1)
    assert benchmark.Floor(1e6, 1e12).milliseconds(case, torch.float32, False) == pytest.approx(10.0)
    assert benchmark.Floor(1e6, 1e12).milliseconds(case, torch.float32, True) == pytest.approx(20.0)
    assert benchmark.Floor(1e12, 1e6).milliseconds(case, torch.float32, False) == pytest.approx(8.0)


def test_results_have_the_environment_in_front(benchmark, tmp_path) -> None:
    about = {"date": "2026-01-02 03:04 UTC", "GPU": "NVIDIA H100 PCIe"}
    path = benchmark.write_results(tmp_path, about, [benchmark.Row("C1", "x", "fp32", "forward", "triton", 2.0, 1.0)])
    assert path.name == "scan-cuda-2026-01-02-h100-pcie.md"
    assert "- GPU: NVIDIA H100 PCIe" in path.read_text(encoding="utf-8")
    assert path.with_suffix(".json").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_it_says_so(benchmark) -> None:
    with pytest.raises(SystemExit, match="torch finds no CUDA device"):
        benchmark.measure(ONCE)
