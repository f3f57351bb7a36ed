"""Option files whose values lead nowhere or do not fit each other: one message, file, line, key, what is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]
Refused = Callable[..., list[str]]
Changes = list[tuple[str, str]]

BROKEN: dict[str, tuple[Changes, list[str]]] = {
    # folders and files
    "missing folder": (
        [("dataroot_lq: lq", "dataroot_lq: lqs")],
        ["9: datasets.train.dataroot_lq: there is no folder lqs"],
    ),
    "empty folder": (
        [("dataroot_lq: lq", "dataroot_lq: empty")],
        ["9: datasets.train.dataroot_lq: ", "holds no image"],
    ),
    "two folders": (
        [("dataroot_lq: lq", "dataroot_lq: [lq, gt]")],
        ["9: datasets.train.dataroot_lq: found 2 for 1 of dataroot_gt; one for each, in the same order, is right"],
    ),
    "a folder of nobody": (
        [("dataroot_lq: lq", "dataroot_lq: ~nobody-of-that-name/lq")],
        ["9: datasets.train.dataroot_lq: there is no folder ~nobody-of-that-name/lq; correct the path"],
    ),
    "a folder with too long a name": (
        [("dataroot_lq: lq", f"dataroot_lq: {'n' * 300}")],
        ["9: datasets.train.dataroot_lq: there is no folder nnnnnn"],
    ),
    "a file for a folder": (
        [("dataroot_lq: lq", "dataroot_lq: gt/a.png")],
        [
            "9: datasets.train.dataroot_lq: gt/a.png is a file; the path of a folder is right",
        ],
    ),
    "an empty path": (
        [("dataroot_lq: lq", "dataroot_lq: ''")],
        [
            "9: datasets.train.dataroot_lq: found ''; the path of a folder is right",
        ],
    ),
    "missing weights": (
        [("pretrain_network_g: ~", "pretrain_network_g: none.pth")],
        [
            "24: path.pretrain_network_g: there is no file none.pth",
        ],
    ),
    "a folder for weights": (
        [("pretrain_network_g: ~", "pretrain_network_g: gt")],
        [
            "24: path.pretrain_network_g: gt is a folder; the path of a file is right",
        ],
    ),
    "missing state": (
        [("pretrain_network_g: ~", "resume_state: 10.state")],
        [
            "24: path.resume_state: there is no file 10.state",
        ],
    ),
    "file names that do not pair": (
        [("gt_size: 16", "gt_size: 16\n    filename_tmpl: '{}x4'")],
        [
            "8: datasets.train.dataroot_gt: no ground truth for a.png, b.png of dataroot_lq",
            "9: datasets.train.dataroot_lq: ",
            "has no partner of a.png, b.png",
            "is filename_tmpl ({}x4) right?",
        ],
    ),
    "a template without place": (
        [("gt_size: 16", "gt_size: 16\n    filename_tmpl: x4")],
        [
            "11: datasets.train.filename_tmpl: must hold {} once",
        ],
    ),
    "folder outside": (
        [("pretrain_network_g: ~", "experiments_root: ../elsewhere")],
        [
            "24: path.experiments_root: found '../elsewhere'; a folder inside the current directory is right",
        ],
    ),
    "folder in use": (
        [("pretrain_network_g: ~", "experiments_root: gt")],
        ["24: path.experiments_root: gt is no experiment's folder and not empty; name a new folder"],
    ),
    "name that leads outside": (
        [("name: small", "name: ../small")],
        ["1: name: found '../small'; a plain folder name is right"],
    ),
    "name of a hidden folder": (
        [("name: small", "name: .small")],
        ["1: name: found '.small'; a plain folder name is right"],
    ),
    # values that do not fit each other
    "network and scale": (
        [("  upscale: 4\n", "  upscale: 2\n")],
        [
            "17: network_g.upscale: found 2, but scale is 4; the two must be equal",
        ],
    ),
    "default of the network and scale": (
        [("  upscale: 4\n", "")],
        [
            "15: network_g.upscale: found 2 (as it is not given), but scale is 4",
        ],
    ),
    "patch and scale": (
        [("gt_size: 16", "gt_size: 15")],
        ["10: datasets.train.gt_size: must be a multiple of scale (4)"],
    ),
    "scale of a data set": (
        [("gt_size: 16", "gt_size: 16\n    scale: 2")],
        [
            "11: datasets.train.scale: found 2; 4 is right here: leave it out",
        ],
    ),
    "validation that never comes": (
        [("  val_freq: 5\n", "")],
        [
            "12: datasets.val: datasets.val is never used: val.val_freq (steps between validations) is missing",
        ],
    ),
    "two batch sizes": (
        [("gt_size: 16", "gt_size: 16\n    batch_size_per_gpu: 2")],
        [
            "11: datasets.train.batch_size_per_gpu: total_batch_size is given too; keep total_batch_size only",
        ],
    ),
    "batch size of validation": (
        [("type: BicubicDataset", "type: BicubicDataset\n    batch_size_per_gpu: 2")],
        [
            "14: datasets.val.batch_size_per_gpu: images are validated and tested one by one; delete this key",
        ],
    ),
    "overlap of more than half a tile": (
        [("val_freq: 5", "val_freq: 5\n  tile: 64\n  overlap: 33")],
        [
            "39: val.overlap: must be at most half of val.tile, 32; got 33",
        ],
    ),
    "two sets of one name": (
        [
            (
                "type: BicubicDataset\n    dataroot_gt: gt",
                "type: BicubicDataset\n    name: x\n    dataroot_gt: gt\n"
                "  val_2: {type: BicubicDataset, name: x, dataroot_gt: gt}",
            )
        ],
        [
            "16: datasets.val_2.name: 'x' is the name of datasets.val too; choose another",
        ],
    ),
    "colour for a grey network": (
        [("  embed_dim: 8", "  in_chans: 1\n  embed_dim: 8")],
        [
            "6: datasets.train.color: found rgb, but network_g.in_chans is 1; gray or y is right",
            "12: datasets.val.color: found rgb, but network_g.in_chans is 1; gray or y is right",
        ],
    ),
    "a momentum above 1": (
        [("betas: [0.9, 0.99]", "betas: [1.9, 0.99]")],
        ["27: train.optim_g: Adam refuses these values: Invalid beta parameter at index 0: 1.9"],
    ),
    "infinite learning rate": ([("lr: 1e-4", "lr: .inf")], ["29: train.optim_g.lr: found inf; a number is right"]),
    "a loss that refuses": (
        [("type: L1Loss", "type: L1Loss\n    reduction: median")],
        ["34: train.pixel_opt: L1Loss refuses these values: reduction must be one of none, mean, sum, found 'median'"],
    ),
    "a metric that refuses": (
        [("crop_border: 4", "crop_border: -4")],
        ["39: val.metrics.psnr: calculate_psnr refuses these values: crop_border"],
    ),
    "a width below zero": (
        [("embed_dim: 8", "embed_dim: -8")],
        ["15: network_g: MambaIR refuses these values: "],
    ),
    "a scale that is no number": ([("scale: 4\nmanual", "scale: .nan\nmanual")], ["3: scale: found nan"]),
    "restarts without weights": (
        [("milestones: [5]", "milestones: [5]\n    restarts: [0, 5]")],
        [
            "31: train.scheduler.restart_weights: found 1 values for 2 cycles; one value for each is right",
        ],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_names_every_fault(write: Write, refused: Refused, changes: Changes, expected: list[str]) -> None:
    path = write(*changes)
    lines = refused(path)
    message = "\n".join(lines)
    for part in expected:
        assert (f"{path}:{part}" if part[0].isdigit() else part) in message
    assert len(lines) == sum(part[0].isdigit() for part in expected), message


def test_a_missing_folder_is_looked_for_once_in_the_checkout_itself(
    write: Write, refused: Refused, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mambair.options.paths.CHECKOUT", workspace)
    (line,) = refused(write(("dataroot_lq: lq", "dataroot_lq: lqs")))
    assert f"there is no folder lqs (looked in {workspace}); correct the path" in line
