"""The report of a run: which records count, the table, the curves, the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mambair.images.files import read_image
from mambair.training.report import best_values, draw_curves, read_records, write_report
from mambair.training.sample_pictures import GAP, grid, middle, side_by_side

RECORDS = [
    {"iter": 1, "epoch": 0, "lr": 1e-3, "l_pix": 0.5, "seconds": 0.1, "data_seconds": 0.0, "memory_mib": 10.0},
    {"iter": 2, "validation": "Set5", "psnr": 30.0, "lpips": 0.3},
    {"iter": 2, "epoch": 0, "lr": 1e-3, "l_pix": 9.9, "seconds": 0.1, "data_seconds": 0.0, "memory_mib": 10.0},
    {"iter": 2, "epoch": 0, "lr": 1e-3, "l_pix": 0.4, "seconds": 0.3, "data_seconds": 0.0, "memory_mib": 12.0},
    {"iter": 4, "validation": "Set5", "psnr": 29.0, "lpips": 0.2},
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
    assert rows == ["| Set5 | psnr | 30.0000 | 2 | 29.0000 |", "| Set5 | lpips | 0.2000 | 4 | 0.2500 |"]


def test_curves_are_a_picture(metrics_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves(read_records(metrics_file), tmp_path / "curves.png")
    assert read_image(tmp_path / "curves.png").pixels.std() > 0
    assert not draw_curves([], tmp_path / "none.png")


@pytest.mark.parametrize("with_gt", [True, False], ids=["with gt", "without"])
def test_side_by_side_cuts_the_middle_of_each(with_gt: bool) -> None:
    visuals = {"lq": torch.rand(1, 3, 30, 20), "result": torch.rand(1, 3, 60, 40)}
    if with_gt:
        visuals["gt"] = torch.zeros(1, 3, 60, 40)
    picture = side_by_side(visuals, side=48)
    count = 3 if with_gt else 2
    assert picture.shape == (48, 40 * count + GAP * (count - 1), 3)
    repeated = (visuals["lq"][0, :, 3, 0] * 255).round().to(torch.uint8)
    assert torch.equal(torch.from_numpy(picture[0, 0]), repeated)
    assert (picture[:, 40 : 40 + GAP] == 255).all()


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

    def feed_data(self, data: Any) -> None:
        self.data = data

    def test(self) -> None:
        self.result = self.data["lq"].repeat_interleave(2, -1).repeat_interleave(2, -2)

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return {"lq": self.data["lq"], "result": self.result}


def test_report_shows_what_it_names(metrics_file: Path) -> None:
    class Pictures(list[Any]):
        opt = {"name": "Set5"}  # noqa: RUF012

    pictures = Pictures({"lq": torch.rand(3, 8, 8), "lq_path": f"{number}.png"} for number in range(2))
    opt = {**OPT, "path": {"experiments_root": str(metrics_file.parent)}}
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
        assert read_image(path.parent / name).pixels.shape == (16, 2 * 16 + GAP, 3)
