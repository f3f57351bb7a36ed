"""The report of a run: which records count, the table, the curves, the pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mambair
from mambair.images.files import read_image
from mambair.images.resize import imresize
from mambair.metrics import calculate_psnr
from mambair.system.machine import describe_machine
from mambair.training import report, sample_pictures
from mambair.training.report import best_values, draw_curves, panels_of, read_records, write_report
from mambair.training.sample_pictures import GAP, LABEL, grid, middle, side_by_side

RECORDS = [
    {"iter": 1, "epoch": 0, "lr": 1e-3, "l_pix": 0.5, "seconds": 0.1, "data_seconds": 0.0, "memory_mib": 10.0},
    {"iter": 2, "validation": "Set5", "psnr": 30.0, "lpips": 0.3},
    {"iter": 2, "epoch": 0, "lr": 1e-3, "l_pix": 9.9, "seconds": 0.1, "data_seconds": 0.0, "memory_mib": 10.0},
    {"iter": 2, "epoch": 0, "lr": 1e-3, "l_pix": 0.4, "seconds": 0.3, "data_seconds": 0.0, "memory_mib": 12.0},
    {
        "iter": 4,
        "validation": "Set5",
        "psnr": 29.0,
        "lpips": 0.2,
        "baseline": {"name": "bicubic", "psnr": 24.5, "lpips": "nan"},
    },
    {"iter": 6, "validation": "Set5", "psnr": "nan", "lpips": 0.25},
]
OPT: dict[str, Any] = {
    "name": "tiny",
    "network_g": {"type": "MambaIR", "embed_dim": 8},
    "train": {"total_iter": 6},
    "val": {"metrics": {"psnr": {"better": "higher"}, "lpips": {"better": "lower"}}},
}


@pytest.fixture
def metrics_file(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS) + '{"iter": 7, "ep')
    return path


def test_repeated_iterations_count_once_and_a_torn_line_not_at_all(metrics_file: Path) -> None:
    records = read_records(metrics_file)
    assert [(record["iter"], "validation" in record) for record in records] == [
        (1, False),
        (2, False),
        (2, True),
        (4, True),
        (6, True),
    ]
    assert records[1]["l_pix"] == 0.4


def test_best_values_know_which_way_is_better(metrics_file: Path) -> None:
    rows = best_values(OPT, read_records(metrics_file))[2:]
    assert rows == [
        "| Set5 | psnr | bicubic 24.5000 | 30.0000 | 2 | 29.0000 |",
        "| Set5 | lpips | - | 0.2000 | 4 | 0.2500 |",
    ]


def test_a_metric_that_was_never_measured_has_a_row(metrics_file: Path) -> None:
    opt = {**OPT, "val": {"metrics": {**OPT["val"]["metrics"], "own": {}}}}
    assert best_values(opt, read_records(metrics_file))[4:] == [
        "| Set5 | own | - | not measured, see the log | - | - |"
    ]


def test_each_metric_has_a_panel_with_its_baseline(metrics_file: Path) -> None:
    panels = panels_of(read_records(metrics_file))
    assert list(panels) == ["loss", "learning rate", "psnr", "lpips"]
    assert panels["psnr"].curves == {"Set5": [(2, 30.0), (4, 29.0)]}
    assert panels["psnr"].levels == {"Set5, bicubic": 24.5}
    assert panels["lpips"].curves == {"Set5": [(2, 0.3), (4, 0.2), (6, 0.25)]} and panels["lpips"].levels == {}
    assert panels["loss"].curves == {"l_pix": [(1, 0.5), (2, 0.4)]}


def test_iterations_are_whole_numbers(metrics_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    drawn: list[Any] = []
    save = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    assert draw_curves(read_records(metrics_file)[:2], tmp_path / "curves.png")
    for axis in drawn[0].axes:
        shown = [tick for tick in axis.get_xticks() if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
        assert shown and all(float(tick).is_integer() for tick in shown)


def test_curves_are_a_picture(metrics_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves(read_records(metrics_file), tmp_path / "curves.png")
    assert read_image(tmp_path / "curves.png").pixels.std() > 0
    assert not draw_curves([], tmp_path / "none.png")


@pytest.mark.parametrize("with_gt", [True, False], ids=["with gt", "without"])
def test_side_by_side_cuts_the_middle_of_each(with_gt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    visuals = {
        "lq": torch.rand(1, 3, 80, 70, generator=generator),
        "result": torch.rand(1, 3, 160, 140, generator=generator),
    }
    if with_gt:
        visuals["gt"] = torch.rand(1, 3, 160, 140, generator=generator)
    labels: list[str] = []
    labelled = sample_pictures._labelled
    monkeypatch.setattr(
        sample_pictures, "_labelled", lambda image, text: (labels.append(text), labelled(image, text))[1]
    )
    picture = side_by_side(visuals, side=120)
    count = 3 if with_gt else 2
    assert picture.shape == (LABEL + 120, 120 * count + GAP * (count - 1), 3)
    pixels = {key: (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for key, image in visuals.items()}
    shown = {key: image[20:140, 10:130] for key, image in pixels.items()}
    shown["lq"] = np.asarray(imresize(pixels["lq"], 2))[20:140, 10:130]
    for place, image in enumerate(shown.values()):
        left = place * (120 + GAP)
        assert np.array_equal(picture[LABEL:, left : left + 120], image)
        assert (picture[:LABEL, left : left + 120] < 128).any(), "a text"
    assert (picture[:, 120 : 120 + GAP] == 255).all()
    if with_gt:
        psnr = [calculate_psnr(shown[key], shown["gt"], 0) for key in ("lq", "result")]
        assert labels == [f"bicubic {psnr[0]:.2f} dB", f"result {psnr[1]:.2f} dB", "ground truth"]
    else:
        assert labels == ["bicubic", "result"]


def test_a_small_picture_is_as_wide_as_its_text_and_an_input_of_full_size_stays() -> None:
    noisy = torch.full((1, 1, 8, 8), 0.5)
    picture = side_by_side({"lq": noisy, "result": noisy, "gt": noisy})
    assert picture.shape[0] == LABEL + 8 and picture.shape[1] > 3 * 8 + 2 * GAP and picture.shape[2] == 1
    assert (picture[LABEL:, :8] == 128).all()


def test_middle_of_a_large_sample_fits_its_ground_truth() -> None:
    item = {"lq": torch.rand(3, 400, 90), "gt": torch.rand(3, 800, 180), "lq_path": "a.png"}
    batch = middle(item, side=64)
    assert batch["lq"].shape == (1, 3, 64, 64) and batch["gt"].shape == (1, 3, 128, 128)
    assert torch.equal(batch["lq"][0], item["lq"][:, 168:232, 13:77])
    assert torch.equal(batch["gt"][0], item["gt"][:, 336:464, 26:154])
    assert batch["lq_path"] == ["a.png"]
    whole = middle({"lq": torch.rand(3, 5, 7)})
    assert whole["lq"].shape == (1, 3, 5, 7) and "gt" not in whole


def test_a_grid_has_a_row_for_each_picture() -> None:
    rows = [np.zeros((4, 9, 3), np.uint8), np.full((2, 5, 1), 7, np.uint8)]
    made = grid(rows)
    assert made.shape == (4 + GAP + 2, 9, 3)
    assert (made[4 : 4 + GAP] == 255).all() and (made[-2:, :5] == 7).all() and (made[-2:, 5:] == 255).all()


class Doubling:
    """Restores by repeating pixels."""

    net_g: torch.nn.Module | None = None

    def feed_data(self, data: Any) -> None:
        self.data = data

    def test(self) -> None:
        self.result = self.data["lq"].repeat_interleave(2, -1).repeat_interleave(2, -2)

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return {"lq": self.data["lq"], "result": self.result}


@pytest.fixture
def opt(metrics_file: Path) -> dict[str, Any]:
    train = {"name": "DIV2K", "type": "BicubicDataset", "dataroot_gt": "data/DIV2K", "total_batch_size": 8}
    return {
        **OPT,
        "manual_seed": 17,
        "world_size": 2,
        "train": {"total_iter": 6, "accumulation": 2},
        "datasets": {"train": train},
        "path": {"experiments_root": str(metrics_file.parent)},
    }


class Pictures(list[Any]):
    opt = {"name": "Set5", "type": "PairedImageDataset", "dataroot_gt": "data/Set5"}  # noqa: RUF012


def test_report_shows_what_it_names(opt: dict[str, Any]) -> None:
    pictures = Pictures({"lq": torch.rand(3, 8, 8), "lq_path": f"{number}.png"} for number in range(2))
    path = write_report(opt, Doubling(), [SimpleNamespace(dataset=pictures)])
    text = path.read_text()
    for expected in (
        "# tiny",
        "embed_dim: 8",
        "0.200 s per iteration, 12 MiB",
        "Set5 | psnr",
        "![sample 2](sample_2.png)",
    ):
        assert expected in text
    for name in ("sample_1.png", "sample_2.png"):
        assert read_image(path.parent / name).pixels.shape[0] == LABEL + 16


def test_report_states_how_to_repeat_the_run(opt: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_commit", lambda: "0123abc-dirty")
    model = Doubling()
    model.net_g = torch.nn.Linear(2, 3)
    lines = write_report(opt, model, [SimpleNamespace(dataset=Pictures())]).read_text().splitlines()
    for expected in (
        "- parameters: 9",
        "- seed: 17",
        "- batch: 8 images in a step, 2 process(es), 2 pass(es) in each",
        "- training data: name DIV2K, type BicubicDataset, dataroot_gt data/DIV2K",
        "- validation data: name Set5, type PairedImageDataset, dataroot_gt data/Set5, 0 images",
        f"- machine: {describe_machine('numpy')}; mambair {mambair.__version__}",
        "- commit: 0123abc-dirty",
    ):
        assert expected in lines


def test_the_commit_is_that_of_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: Path) -> None:
    commit = report._commit()
    if (repository / ".git").exists() and shutil.which("git"):
        assert commit is not None and re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
    monkeypatch.setattr(report, "__file__", str(tmp_path / "site-packages" / "mambair" / "training" / "report.py"))
    assert report._commit() is None
