"""TensorBoard and Weights & Biases behind one writer: what reaches them, and that no failure ends a training."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mambair.training.writers import Writers, open_wandb, open_writers

OPTIONS = """
name: drawn
model_type: MambaIRModel
scale: 2
num_gpu: 0
manual_seed: 1
datasets:
  train: {{type: BicubicDataset, dataroot_gt: {root}/gt, gt_size: 16, total_batch_size: 1}}
  val: {{name: val, type: BicubicDataset, dataroot_gt: {root}/gt}}
network_g: {{type: MambaIR, upscale: 2, embed_dim: 8, depths: [1], d_state: 2, mlp_ratio: 1,
  upsampler: pixelshuffledirect}}
train: {{optim_g: {{type: Adam, lr: 1e-3}}, total_iter: 2, pixel_opt: {{type: L1Loss}}}}
val: {{val_freq: 2, metrics: {{psnr: {{type: calculate_psnr, crop_border: 2}}}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 2, wandb: {{project: tests, resume_id: ~}}}}
"""


class Drawing:
    """Writes down what is drawn; fails from a call on."""

    def __init__(self, fails_at: int = 100) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = fails_at

    def _note(self, *call: Any) -> None:
        if len(self.calls) >= self.fails_at:
            raise OSError("no space left")
        self.calls.append(call)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._note(tag, scalar_value, global_step)

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str = "HWC") -> None:
        self._note(tag, img_tensor.shape, global_step, dataformats)

    def close(self) -> None:
        self._note("close")


def test_each_gets_all_and_one_that_fails_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    sound, failing = Drawing(), Drawing(fails_at=1)
    writers = Writers({"failing": failing, "sound": sound})
    writers.add_scalar("l_pix", 0.5, 1)
    writers.add_image("val/0", np.zeros((4, 6, 3), np.uint8), 1)
    writers.add_scalar("l_pix", 0.25, 2)
    writers.close()
    assert sound.calls == [("l_pix", 0.5, 1), ("val/0", (4, 6, 3), 1, "HWC"), ("l_pix", 0.25, 2), ("close",)]
    assert failing.calls == [("l_pix", 0.5, 1)]
    assert [record.getMessage() for record in caplog.records] == [
        "failing fails and is left alone from now on: no space left"
    ]


def options(folder: Path, **log: Any) -> dict[str, Any]:
    return {"name": "x", "path": {"experiments_root": str(folder)}, "logger": log, "train": {"total_iter": 1}}


@pytest.mark.parametrize(
    ("module", "log", "message"),
    [
        ("tensorboard", {"use_tb_logger": True}, "use_tb_logger is set, but TensorBoard is not installed"),
        ("wandb", {"wandb": {"project": "p"}}, "wandb.project is set, but wandb is not installed"),
    ],
)
def test_what_is_not_installed(
    module: str, log: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    assert open_writers(options(tmp_path, **log), tmp_path) is None
    assert message in caplog.text


@pytest.mark.parametrize("asked", [None, {}, {"project": None, "resume_id": None}])
def test_nothing_is_asked_for(asked: dict[str, None] | None, tmp_path: Path) -> None:
    assert open_writers(options(tmp_path, wandb=asked, use_tb_logger=False), tmp_path) is None


def test_a_run_that_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse(**settings: Any) -> None:
        raise wandb.errors.UsageError("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    assert open_wandb(options(tmp_path, wandb={"project": "p"})) is None
    assert "Weights & Biases: no run was begun: api_key not configured" in caplog.text


def test_pictures_reach_tensorboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    writers = Writers({"TensorBoard": tensorboard.SummaryWriter(str(tmp_path))})
    writers.add_image("a", np.zeros((20, 30, 3), np.uint8), 1)
    writers.add_image("b", np.zeros((3, 20, 30), np.uint8), 1, dataformats="CHW")
    writers.add_scalar("c", 1.0, 1)
    writers.close()
    assert caplog.text == ""


def test_an_offline_training(tmp_path: Path, repository: Path) -> None:
    """The real library, which has nobody to call; its file holds the losses, the metrics and the options."""
    pytest.importorskip("wandb")
    (tmp_path / "gt").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "gt/a.png")
    (tmp_path / "file.yml").write_text(OPTIONS.format(root=tmp_path))
    # a proxy that nobody listens at: a contact would fail
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
    paths = os.pathsep.join([str(repository), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"WANDB_MODE": "offline", "HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "mambair", "train", "-opt", "file.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases: run drawn; wandb: {resume_id: " in done.stdout
    (file,) = (tmp_path / "experiments/drawn/wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    for expected in (b"losses/l_pix", b"metrics/val/psnr", b"network_g", b"pixelshuffledirect"):
        assert expected in content
    assert str(tmp_path / "gt").encode() not in content, "the options are recorded without paths"
