"""The loop around a model that only counts: what is called when, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mambair.system.distributed import Processes
from mambair.training.logs import RunLog, Stopwatch
from mambair.training.loop import Loop
from mambair.training.signals import GracefulShutdown
from mambair.weights.checkpoint import CheckpointWriteError


class NoImages:
    """A validation set without images."""

    opt = {"name": "Set"}  # noqa: RUF012

    def __len__(self) -> int:
        return 0


class CountingModel:
    """Speaks the protocol and writes down every call."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.calls: list[tuple[Any, ...]] = []
        self.draws: list[float] = []
        self.metric_results = {"psnr": float("nan")}
        self.baselines = {"Set": {"name": "bicubic", "psnr": 24.5}}
        self.signal_at: int | None = None
        self.disk_full = False

    def feed_data(self, data: Any) -> None:
        self.calls.append(("feed", data["number"]))

    def optimize_parameters(self, current_iter: int) -> None:
        self.draws.append(torch.rand(()).item())
        if current_iter == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        self.calls.append(("rate", current_iter, warmup_iter))

    def get_current_learning_rate(self) -> list[float]:
        return [1e-3, 1e-3]

    def get_current_log(self) -> dict[str, float]:
        return {"l_pix": 0.5}

    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        self.calls.append(("validation", current_iter, save_img))

    def test(self) -> None:
        pass

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return {"lq": torch.zeros(1, 3, 4, 6), "result": torch.ones(1, 3, 8, 12)}

    def save(self, epoch: int, current_iter: int) -> None:
        if self.disk_full:
            raise OSError(28, "No space left on device")
        self.calls.append(("save", epoch, current_iter))

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        self.calls.append(("state", epoch, current_iter))

    def resume_training(self, resume_state: Any) -> None:
        raise AssertionError("the loop starts after resuming")


def numbered(first: int) -> Iterator[dict[str, int]]:
    while True:
        yield {"number": first}
        first += 1


def make_loop(folder: Path, model: CountingModel, start: int = 0, total: int = 10) -> Loop:
    opt = {
        "name": "tiny",
        "network_g": {"type": "None"},
        "train": {"total_iter": total, "warmup_iter": 3},
        "val": {"val_freq": 5, "save_img": True},
        "logger": {"print_freq": 4, "save_checkpoint_freq": 4},
        "path": {"models": str(folder), "training_states": str(folder), "experiments_root": str(folder)},
    }
    loader = SimpleNamespace(dataset=NoImages())
    log = RunLog("tiny", total, 2, folder / "metrics.jsonl", None)
    return Loop(opt, model, numbered(start), [loader], log, Processes(), start, 7, epoch_iterations=3.5)


def test_what_is_called_when(tmp_path: Path) -> None:
    model = CountingModel()
    loop = make_loop(tmp_path, model)
    assert loop.run(GracefulShutdown())
    loop.finish()
    kinds = [call for call in model.calls if call[0] not in ("feed", "rate")]
    assert kinds == [
        ("save", 0, 4),
        ("validation", 5, True),
        ("save", 2, 8),
        ("save", 2, 10),
        ("validation", 10, True),
        ("state", 2, 10),
        ("save", -1, -1),
    ]
    assert [call[1] for call in model.calls if call[0] == "feed"] == list(range(10))
    assert [call[1:] for call in model.calls if call[0] == "rate"] == [(i, 3) for i in range(1, 11)]


def test_metrics_file_is_json_lines_without_nan(tmp_path: Path) -> None:
    make_loop(tmp_path, CountingModel()).run(GracefulShutdown())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["iter"] for record in records] == [4, 5, 8, 10, 10]
    assert records[0]["l_pix"] == 0.5 and records[0]["lr"] == 1e-3
    assert records[0]["images_per_second"] > 0 and records[0]["data_seconds"] >= 0
    baseline = {"name": "bicubic", "psnr": 24.5}
    assert records[1] == {"iter": 5, "validation": "Set", "psnr": "nan", "baseline": baseline}


def test_the_first_iterations_are_in_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 90.0, 90.0, 92.0])  # start; end of the warm-up and its mean; a report
    monkeypatch.setattr("mambair.training.logs.time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch(warm_up=3)
    for waited in (30.0, 0.3, 0.3):
        stopwatch.iteration_done(waited)
    for _ in range(4):
        stopwatch.iteration_done(0.25)
    assert stopwatch.means() == (0.5, 0.25)


def test_without_others_the_first_iterations_are_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 9.0])
    monkeypatch.setattr("mambair.training.logs.time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch(warm_up=3)
    for _ in range(3):
        stopwatch.iteration_done(1.0)
    assert stopwatch.means() == (3.0, 1.0)


def test_random_numbers_depend_on_the_iteration_only(tmp_path: Path) -> None:
    whole, second_half = CountingModel(), CountingModel()
    make_loop(tmp_path, whole).run(GracefulShutdown())
    torch.rand(100)
    make_loop(tmp_path, second_half, start=6).run(GracefulShutdown())
    assert whole.draws[6:] == second_half.draws
    assert len(set(whole.draws)) == 10


def test_a_signal_finishes_the_iteration_and_saves(tmp_path: Path) -> None:
    model = CountingModel()
    model.signal_at = 6
    with GracefulShutdown() as interruption:
        assert not make_loop(tmp_path, model).run(interruption)
    assert interruption.exit_code == 143
    assert model.calls[-1] == ("save", 1, 6)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_during_validation_saves_after_it(tmp_path: Path) -> None:
    class Signalled(CountingModel):
        def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
            super().validation(dataloader, current_iter, tb_logger, save_img)
            os.kill(os.getpid(), signal.SIGTERM)

    model = Signalled()
    with GracefulShutdown() as interruption:
        assert not make_loop(tmp_path, model).run(interruption)
    assert model.calls[-2:] == [("validation", 5, True), ("save", 1, 5)]


def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), GracefulShutdown() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested and interruption.exit_code == 130
        os.kill(os.getpid(), signal.SIGINT)


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    model = CountingModel()
    model.disk_full = True
    with pytest.raises(
        CheckpointWriteError, match=r"No space left.*disk full\?.*newest complete one is that of iteration 0"
    ):
        make_loop(tmp_path, model).run(GracefulShutdown())
