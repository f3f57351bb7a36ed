"""What load_options returns: defaults, paths, the batch size, the seed, and what it drops or passes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mambair.options import OptionsError, load_options
from mambair.registry import basicsr_installed

Write = Callable[..., Path]
needs_basicsr = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")


def test_a_training_file_is_completed_as_basicsr_does(write: Write, workspace: Path) -> None:
    opt = load_options(write(), is_train=True)
    root = workspace / "experiments" / "small"
    assert {
        key: opt["path"][key] for key in ("experiments_root", "models", "training_states", "log", "visualization")
    } == {
        "experiments_root": str(root),
        "models": str(root / "models"),
        "training_states": str(root / "training_states"),
        "log": str(root),
        "visualization": str(root / "visualization"),
    }
    assert opt["path"]["tb_logger"] == str(workspace / "tb_logger" / "small")
    assert opt["is_train"] is True
    assert opt["num_gpu"] == "auto"
    assert opt["train"]["optim_g"] == {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
    assert opt["train"]["scheduler"]["gamma"] == 0.1
    assert opt["train"]["ema_decay"] == 0
    assert opt["logger"] == {
        "print_freq": 1,
        "save_checkpoint_freq": 5000,
        "keep_checkpoints": None,
        "use_tb_logger": False,
        "wandb": None,
    }
    train, val = opt["datasets"]["train"], opt["datasets"]["val"]
    assert (train["phase"], train["scale"], train["name"]) == ("train", 4, "train")
    assert (val["phase"], val["scale"], val["name"]) == ("val", 4, "val")
    assert train["dataroot_lq"] == str(workspace / "lq")
    assert train["total_batch_size"] == 2
    assert train["filename_tmpl"] == "{}"
    assert "meta_info_file" not in train
    assert not (workspace / "experiments").exists()


def test_a_test_file_writes_to_results(write: Write, workspace: Path) -> None:
    opt = load_options(write(is_train=False), is_train=False)
    assert opt["path"]["results_root"] == str(workspace / "results" / "small_test")
    assert opt["path"]["visualization"] == str(workspace / "results" / "small_test" / "visualization")
    assert opt["num_gpu"] in (0, 1)
    assert (opt["val"]["tile"], opt["val"]["overlap"]) == (0, None)


def test_a_test_file_may_leave_the_network_to_the_weights(write: Write) -> None:
    network = (
        "network_g:\n  type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  upsampler: pixelshuffledirect\n"
    )
    with pytest.raises(
        OptionsError, match=r"network_g: this required section is missing \(or path\.pretrain_network_g"
    ):
        load_options(write((network, ""), is_train=False), is_train=False)
    path = write((network, "path: {pretrain_network_g: weights.pth}\n"), is_train=False)
    assert load_options(path, is_train=False)["network_g"] is None


def test_every_call_starts_afresh(write: Write) -> None:
    path = write()
    first = load_options(path, is_train=True)
    first["train"]["optim_g"].pop("type")
    first["path"].clear()
    assert load_options(path, is_train=True)["train"]["optim_g"]["type"] == "Adam"


@pytest.mark.parametrize(
    ("line", "total"),
    [
        ("total_batch_size: 6", 6),
        ("batch_size_per_gpu: 3", 3),
        ("batch_size_per_gpu: 3\nnum_gpu: 8", 24),
        ("batch_size_per_gpu: 3\nnum_gpu: 0", 3),
        ("batch_size_per_gpu: 3\naccumulation: 2", 6),
    ],
    ids=["total", "one process", "eight GPUs", "no GPU", "accumulated"],
)
def test_the_total_batch_size_is_settled(write: Write, line: str, total: int, caplog: pytest.LogCaptureFixture) -> None:
    batch, _, extra = line.partition("\n")
    changes = [("total_batch_size: 2", batch)]
    if extra.startswith("num_gpu"):
        changes.append(("manual_seed: 1", f"manual_seed: 1\n{extra}"))
    elif extra:
        changes.append(("total_iter: 10", f"total_iter: 10\n  {extra}"))
    with caplog.at_level(logging.INFO, logger="mambair.options"):
        opt = load_options(write(*changes), is_train=True)
    assert opt["datasets"]["train"]["total_batch_size"] == total
    assert (f"total batch size: {total} = " in caplog.text) == ("per_gpu" in line)


def test_processes_count_where_the_file_says_auto(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    opt = load_options(write(("total_batch_size: 2", "batch_size_per_gpu: 3")), is_train=True)
    assert opt["datasets"]["train"]["total_batch_size"] == 12


def test_a_seed_is_drawn_and_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write(("manual_seed: 1\n", ""))
    with caplog.at_level(logging.INFO, logger="mambair.options"):
        seeds = [load_options(path, is_train=True)["manual_seed"] for _ in range(3)]
    assert len(set(seeds)) > 1
    assert f"manual_seed: {seeds[0]} (drawn" in caplog.text


def test_processes_of_one_launch_draw_one_seed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(("manual_seed: 1\n", ""))
    seeds = []
    for port in ("29500", "29500", "29501"):
        monkeypatch.setenv("MASTER_PORT", port)
        seeds.append(load_options(path, is_train=True)["manual_seed"])
    assert seeds[0] == seeds[1] != seeds[2]


def test_overrides_are_yaml_and_are_checked_like_the_file(write: Write) -> None:
    path = write()
    opt = load_options(
        path,
        is_train=True,
        overrides=[
            "train:total_iter=5e1",
            "train:optim_g:betas=[0.8, 0.9]",
            "name=other",
            "train:amp=bf16",
            "logger:keep_checkpoints=~",
        ],
    )
    assert opt["train"]["total_iter"] == 50
    assert opt["train"]["optim_g"]["betas"] == [0.8, 0.9]
    assert opt["name"] == "other"
    assert opt["train"]["amp"] == "bf16"
    assert opt["path"]["experiments_root"].endswith("other")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train:total_itr=3", "--force_yml train:total_itr=3: train.total_itr: unknown key; did you mean total_iter?"),
        ("train:total_iter=__import__('os')", "train.total_iter: found \"__import__('os')\"; a whole number is right"),
        ("train:total_iter=!!python/name:os.system x", "the tag !!python/name:os.system is refused"),
        ("train:total_iter", "not an override; write key:key=value, such as train:total_iter=20"),
        ("=3", "not an override"),
        ("name:x=3", "name holds 'small'; it has no keys below it"),
        ("train:optim_g:betas=[0.9", "expected ',' or ']'"),
        ("datasets:train:dataroot_gt=nowhere", "datasets.train.dataroot_gt: there is no folder nowhere"),
    ],
    ids=["unknown", "expression", "tag", "no value", "no key", "below a value", "not YAML", "missing folder"],
)
def test_broken_overrides(write: Write, override: str, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        load_options(write(), is_train=True, overrides=["train:warmup_iter=2", override])
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(f"--force_yml {override}: ")
    assert message in caught.value.faults[0]


def test_paths_are_found_from_anywhere(write: Write, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        ("type: BicubicDataset\n    dataroot_gt: gt", "type: BicubicDataset\n    dataroot_gt: datasets/example/val_gt")
    )
    opt = load_options(path, is_train=True)
    assert Path(opt["datasets"]["val"]["dataroot_gt"]).parts[-3:] == ("datasets", "example", "val_gt")
    monkeypatch.setenv("HOME", str(workspace))
    opt = load_options(write(("dataroot_lq: lq", "dataroot_lq: ~/lq")), is_train=True)
    assert opt["datasets"]["train"]["dataroot_lq"] == str(workspace / "lq")


def test_experiments_may_be_a_link_and_lie_deeper(write: Write, workspace: Path, tmp_path_factory: Any) -> None:
    (workspace / "experiments").symlink_to(tmp_path_factory.mktemp("disk"))
    assert load_options(write(), is_train=True)["path"]["models"] == str(workspace / "experiments" / "small" / "models")
    path = write(("pretrain_network_g: ~", "experiments_root: runs/today"))
    assert load_options(path, is_train=True)["path"]["models"] == str(workspace / "runs" / "today" / "models")


OFFICIAL = [
    ("model_type: RestorationModel", "model_type: MambaIRModel"),
    ("manual_seed: 1", "manual_seed: 1\nnum_gpu: 8\ndist_params: {backend: nccl, port: 29500}"),
    (
        "total_batch_size: 2",
        "batch_size_per_gpu: 2\n    task: SR\n    use_shuffle: true\n    prefetch_mode: ~\n    num_worker_per_gpu: 0\n"
        "    dataset_enlarge_ratio: 100\n    use_hflip: true\n    use_rot: true\n    io_backend: {type: disk}",
    ),
    (
        "  upscale: 4\n",
        "  upscale: 4\n  window_size: 16\n  num_heads: [6]\n  interval: 4\n  img_size: 64\n  img_range: 1.\n",
    ),
    ("dataroot_lq: lq", "dataroot_lq:\n      - lq"),
    ("lr: 1e-4", "lr: !!float 2e-4\n    weight_decay: 0"),
    ("total_iter: 10", "total_iter: 10\n  warmup_iter: -1"),
    ("val_freq: 5", "val_freq: !!float 5e3\n  pbar: false\n  selfensemble_testing: false"),
    ("print_freq: 1", "print_freq: 1\n  use_tb_logger: true\n  wandb: {project: ~, resume_id: ~}"),
]


def test_a_file_in_the_style_of_the_official_ones_is_accepted(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    opt = load_options(write(*OFFICIAL), is_train=True)
    assert opt["datasets"]["train"]["total_batch_size"] == 16
    assert opt["val"]["val_freq"] == 5000
    assert opt["train"]["optim_g"]["lr"] == 2e-4
    assert "window_size" not in opt["network_g"]
    warnings = [record.getMessage() for record in caplog.records if "no effect here" in record.getMessage()]
    assert len(warnings) == 1
    for key in (
        "network_g.window_size",
        "network_g.num_heads",
        "network_g.interval",
        "datasets.train.task",
        "datasets.train.use_shuffle",
        "datasets.train.prefetch_mode",
        "val.pbar",
        "dist_params",
    ):
        assert f" {key}" in warnings[0]


def test_denoising_in_the_official_style_is_run_as_what_it_is(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        ("scale: 4\nmanual", "scale: 1\nmanual"),
        ("dataroot_lq: lq", "dataroot_lq: gt\n    filename_tmpl: '{}'\n    task: denoising_color\n    noise: 25"),
        (
            "type: BicubicDataset",
            "type: PairedImageDataset\n    dataroot_lq: gt\n    task: denoising_gray\n    noise: 15",
        ),
        ("  upscale: 4\n", "  upscale: 1\n"),
        ("upsampler: pixelshuffledirect", "upsampler: ''"),
    )
    datasets = load_options(path, is_train=True)["datasets"]
    assert (datasets["train"]["type"], datasets["train"]["sigma"]) == ("GaussianDenoisingDataset", 25)
    assert (datasets["val"]["sigma"], datasets["val"]["color"]) == (15, "gray")
    assert "dataroot_lq" not in datasets["train"]
    assert "datasets.train.task (run as GaussianDenoisingDataset with sigma 25)" in caplog.text


def test_pairs_on_disk_stay_pairs_whatever_the_task(write: Write) -> None:
    path = write(("gt_size: 16", "gt_size: 16\n    task: denoising_color\n    noise: 25"))
    assert load_options(path, is_train=True)["datasets"]["train"]["type"] == "PairedImageDataset"


@needs_basicsr
def test_networks_losses_and_models_of_basicsr_are_checked_too(write: Write) -> None:
    network = (
        "type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n  mlp_ratio: 1.2\n"
        "  upsampler: pixelshuffledirect"
    )
    edsr = "type: EDSR\n  num_in_ch: 3\n  num_out_ch: 3\n  num_feat: 8\n  num_block: 1"
    opt = load_options(
        write(
            (network, f"{edsr}\n  upscale: 4"),
            ("model_type: RestorationModel", "model_type: basicsr/SRModel\nfind_unused_parameters: false"),
            ("type: L1Loss", "type: basicsr/L1Loss"),
            (
                "type: PairedImageDataset",
                "type: basicsr/PairedImageDataset\n    io_backend: {type: disk}\n    use_hflip: true",
            ),
        ),
        is_train=True,
    )
    assert opt["find_unused_parameters"] is False
    assert opt["datasets"]["train"]["io_backend"] == {"type": "disk"}
    with pytest.raises(OptionsError) as caught:
        load_options(write((network, edsr.replace("num_block:", "num_blocks:"))), is_train=True)
    assert "network_g.num_blocks: EDSR has no argument 'num_blocks'; did you mean num_block?" in str(caught.value)
    with pytest.raises(OptionsError, match="found 2, but scale is 4"):
        load_options(write((network, f"{edsr}\n  upscale: 2")), is_train=True)
    with pytest.raises(OptionsError, match="SwinIR has no argument 'windowsize'; did you mean window_size"):
        load_options(write((network, "type: SwinIR\n  windowsize: 8\n  upscale: 4")), is_train=True)


def test_importing_the_package_brings_in_no_pydantic() -> None:
    code = "import sys, mambair; assert not {'pydantic', 'yaml', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
