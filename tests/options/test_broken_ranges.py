"""Option files with numbers out of range, or steps that do not fit each other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.options import load_options

Write = Callable[..., Path]
Refused = Callable[..., list[str]]
Changes = list[tuple[str, str]]

COSINE = ("type: MultiStepLR\n    milestones: [5]", "type: CosineAnnealingRestartLR\n    periods: ")
UNET = (
    "type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n  mlp_ratio: 1.2\n"
    "  upsampler: pixelshuffledirect"
)

BROKEN: dict[str, tuple[Changes, list[str]]] = {
    "gamma of 0": (
        [("milestones: [5]", "milestones: [5]\n    gamma: 0.")],
        ["34: train.scheduler.gamma: found 0.0; greater than 0 is right"],
    ),
    "gamma below 0": (
        [("milestones: [5]", "milestones: [5]\n    gamma: -0.5")],
        ["34: train.scheduler.gamma: found -0.5; greater than 0 is right"],
    ),
    "restart weight of 0": (
        [("milestones: [5]", "milestones: [5]\n    restart_weights: [0]")],
        ["34: train.scheduler.restart_weights[0]: found 0; greater than 0 is right"],
    ),
    "lowest rate below 0": (
        [COSINE, ("periods: ", "periods: [10]\n    eta_min: -1.\n    #")],
        ["34: train.scheduler.eta_min: found -1.0; greater than or equal to 0 is right"],
    ),
    "learning rate of 0": ([("lr: 1e-4", "lr: 0")], ["29: train.optim_g.lr: found 0; a number above 0 is right"]),
    "learning rate below 0": (
        [("lr: 1e-4", "lr: -1e-4")],
        ["29: train.optim_g.lr: found -0.0001; a number above 0 is right"],
    ),
    "milestone beyond the end": (
        [("milestones: [5]", "milestones: [5, 11]")],
        ["33: train.scheduler.milestones: found 11; a number up to train.total_iter (10) is right"],
    ),
    "restart beyond the end": (
        [("milestones: [5]", "milestones: [5]\n    restarts: [0, 12]\n    restart_weights: [1, 1]")],
        ["34: train.scheduler.restarts: found 12; a number up to train.total_iter (10) is right"],
    ),
    "warm-up as long as the training": (
        [("total_iter: 10", "total_iter: 10\n  warmup_iter: 10")],
        ["27: train.warmup_iter: found 10; a number below train.total_iter (10) is right"],
    ),
    "warm-up below none": (
        [("total_iter: 10", "total_iter: 10\n  warmup_iter: -2")],
        ["27: train.warmup_iter: found -2; greater than or equal to -1 is right"],
    ),
    "cosines that end early": (
        [COSINE, ("periods: ", "periods: [3, 6]\n    restart_weights: [1, 1]\n    #")],
        ["33: train.scheduler.periods: found 9 steps in all; train.total_iter (10) or more is right"],
    ),
    "one cosine that ends early": (
        [("type: MultiStepLR\n    milestones: [5]", "type: CosineAnnealingLR\n    T_max: 9")],
        ["33: train.scheduler.T_max: found 9 steps in all; train.total_iter (10) or more is right"],
    ),
    "a period of 0": (
        [COSINE, ("periods: ", "periods: [0, 10]\n    restart_weights: [1, 1]\n    #")],
        ["33: train.scheduler.periods[0]: found 0; greater than or equal to 1 is right"],
    ),
    "all losses without weight": (
        [("type: L1Loss", "type: L1Loss\n    loss_weight: 0\n  fft_opt: {type: FFTLoss, loss_weight: 0.}")],
        ["25: train: all weights of pixel_opt, fft_opt are 0: there is nothing to train for"],
    ),
    "a loss below 0": (
        [("type: L1Loss", "type: L1Loss\n    loss_weight: -1.")],
        ["36: train.pixel_opt.loss_weight: found -1.0; a number of 0 or more is right"],
    ),
    "no group of blocks": (
        [("depths: [1]", "depths: []")],
        ["19: network_g.depths: found []; 1 to 1000 blocks in each place are right"],
    ),
    "a group without blocks": (
        [("depths: [1]", "depths: [1, 0]")],
        ["19: network_g.depths: found [1, 0]; 1 to 1000 blocks in each place are right"],
    ),
    "more blocks than can be built": (
        [("depths: [1]", "depths: [1000000]")],
        ["19: network_g.depths: found [1000000]; 1 to 1000 blocks in each place are right"],
    ),
    "a rate of dropped paths above 1": (
        [("depths: [1]", "depths: [1]\n  drop_path_rate: 1.5")],
        ["15: network_g: MambaIR refuses these values: drop_path_rate must lie in [0, 1], got 1.5"],
    ),
    "more readers than any machine has": (
        [("gt_size: 16", "gt_size: 16\n    num_worker_per_gpu: 1025")],
        ["11: datasets.train.num_worker_per_gpu: found 1025; less than or equal to 1024 is right"],
    ),
    "more images than a step can have": (
        [("total_batch_size: 2", "total_batch_size: 65537")],
        ["11: datasets.train.total_batch_size: found 65537; less than or equal to 65536 is right"],
    ),
    "a state of nothing": (
        [("d_state: 2", "d_state: 0")],
        ["15: network_g: MambaIR refuses these values: d_model, d_state and int(expand * d_model) must be at least 1"],
    ),
    "a group of attention without layers": (
        [(UNET, "type: MambaIRv2\n  upscale: 4\n  upsampler: pixelshuffle\n  depths: [0]\n  num_heads: [2]")],
        ["19: network_g.depths: found [0]; 1 to 1000 blocks in each place are right"],
    ),
    "a stage without blocks": (
        [(UNET, "type: VSSMUNet\n  upscale: 4\n  dims: [8, 16]\n  depths: [1, 0]")],
        ["19: network_g.depths: found [1, 0]; 1 to 1000 blocks in each place are right"],
    ),
    "no block": (
        [(UNET, "type: VimSR\n  upscale: 4\n  upsampler: pixelshuffle\n  depth: 0")],
        ["19: network_g.depth: found 0; 1 to 1000 blocks in each place are right"],
    ),
    "warm-up of no average": (
        [("total_iter: 10", "total_iter: 10\n  ema_warmup: true")],
        ["27: train.ema_warmup: there is no average to warm up: train.ema_decay is missing"],
    ),
    "scale of 0": (
        [("scale: 4\nmanual", "scale: 0\nmanual")],
        ["3: scale: found 0; greater than or equal to 1 is right"],
    ),
    "passes that do not divide the batch": (
        [("total_iter: 10", "total_iter: 10\n  accumulation: 3")],
        ["27: train.accumulation: found 3; a divisor of datasets.train.total_batch_size (2) is right"],
    ),
    "two ways to say the passes": (
        [("total_iter: 10", "total_iter: 10\n  accumulation: 2\n  images_per_pass: 1")],
        ["28: train.images_per_pass: train.accumulation is given too; keep one, the other follows"],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_numbers_out_of_range_are_refused(
    write: Write, refused: Refused, changes: Changes, expected: list[str]
) -> None:
    path = write(*changes)
    lines = refused(path)
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}:{part}")


SHORTENED = {
    "milestones": ("milestones: [5]", "train.scheduler.milestones: found 5; a number up to train.total_iter (3)"),
    "warm-up": (
        "milestones: []\n  warmup_iter: 4",
        "train.warmup_iter: found 4; a number below train.total_iter (3)",
    ),
}


@pytest.mark.parametrize(("text", "expected"), SHORTENED.values(), ids=SHORTENED.keys())
def test_a_run_shortened_on_the_command_line_warns(
    write: Write, caplog: pytest.LogCaptureFixture, text: str, expected: str
) -> None:
    path = write(("milestones: [5]", text))
    with caplog.at_level(logging.WARNING, logger="mambair"):
        load_options(path, is_train=True, overrides=["train:total_iter=3"])
    assert expected in caplog.text


def test_validation_on_the_images_of_the_training_warns(
    write: Write, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mambair"):
        load_options(write(), is_train=True)
    assert f"datasets.val: these are the images of the training, {workspace / 'gt'}" in caplog.text
