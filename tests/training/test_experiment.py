"""The experiment's folder: archived, made, resumed from (past a damaged state), pruned."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from mambair.training.experiment import (
    find_resume_point,
    list_states,
    point_to_weights,
    prepare_folders,
    prune_checkpoints,
    tensorboard_folder,
)
from mambair.weights.checkpoint import CheckpointError


@pytest.fixture
def opt(tmp_path: Path) -> dict:
    root = tmp_path / "experiments" / "tiny"
    folders = {"models": "models", "training_states": "training_states", "log": "", "visualization": "visualization"}
    path = {"experiments_root": str(root), **{key: str(root / name) for key, name in folders.items()}}
    return {"name": "tiny", "path": path}


def write_checkpoint(opt: dict, iteration: int) -> None:
    for key, name, content in (
        ("models", f"net_g_{iteration}.pth", {"params": {"weight": torch.ones(2)}}),
        ("training_states", f"{iteration}.state", {"iter": iteration, "epoch": 0}),
    ):
        Path(opt["path"][key]).mkdir(parents=True, exist_ok=True)
        torch.save(content, Path(opt["path"][key]) / name)


def test_an_earlier_run_is_archived_with_its_tensorboard_files(opt: dict, tmp_path: Path) -> None:
    write_checkpoint(opt, 5)
    tensorboard_folder(opt).mkdir(parents=True)
    option_file = tmp_path / "tiny.yml"
    option_file.write_text("name: tiny\n")
    prepare_folders(opt, option_file, keep_existing=False)
    root = Path(opt["path"]["experiments_root"])
    (archived,) = root.parent.glob("tiny_archived_*")
    assert (archived / "models" / "net_g_5.pth").is_file()
    assert list((tmp_path / "tb_logger").glob("tiny_archived_*"))
    assert (root / "tiny.yml").read_text() == "name: tiny\n"
    assert not list_states(root / "training_states")


def test_resuming_keeps_the_folder(opt: dict) -> None:
    write_checkpoint(opt, 5)
    prepare_folders(opt, None, keep_existing=True)
    assert [state.name for state in list_states(Path(opt["path"]["training_states"]))] == ["5.state"]


def test_what_a_killed_process_was_writing_is_ignored_and_removed(opt: dict) -> None:
    write_checkpoint(opt, 5)
    left_over = Path(opt["path"]["training_states"]) / ".6.0123456789abcdef0123456789abcdef.tmp.state"
    left_over.write_bytes(b"half")
    point = find_resume_point(opt, auto_resume=True)
    assert point is not None and point.iteration == 5
    prepare_folders(opt, None, keep_existing=True)
    assert [path.name for path in left_over.parent.iterdir()] == ["5.state"]


def test_newest_by_number_not_by_text(opt: dict) -> None:
    for iteration in (5, 10, 900, 1000):
        write_checkpoint(opt, iteration)
    point = find_resume_point(opt, auto_resume=True)
    assert point is not None and point.iteration == 1000


@pytest.mark.parametrize("damage", ["truncated state", "truncated weights", "no weights", "empty state", "foreign"])
def test_a_damaged_newest_falls_back(opt: dict, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    for iteration in (5, 10):
        write_checkpoint(opt, iteration)
    state = Path(opt["path"]["training_states"]) / "10.state"
    weights = Path(opt["path"]["models"]) / "net_g_10.pth"
    broken = weights if "weights" in damage else state
    if damage.startswith("truncated"):
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    elif damage == "no weights":
        weights.unlink()
    else:
        state.write_bytes(b"" if damage == "empty state" else b"not a checkpoint at all")
    with caplog.at_level(logging.WARNING):
        point = find_resume_point(opt, auto_resume=True)
    assert point is not None and point.iteration == 5
    assert str(broken) in caplog.text and "trying the one before" in caplog.text


def test_nothing_loadable_is_a_fault_not_a_fresh_start(opt: dict) -> None:
    write_checkpoint(opt, 5)
    (Path(opt["path"]["training_states"]) / "5.state").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 1 training states"):
        find_resume_point(opt, auto_resume=True)


def test_first_start_with_auto_resume(opt: dict) -> None:
    assert find_resume_point(opt, auto_resume=True) is None


def test_named_state_is_never_replaced_by_another(opt: dict) -> None:
    for iteration in (5, 10):
        write_checkpoint(opt, iteration)
    named = Path(opt["path"]["training_states"]) / "5.state"
    opt["path"]["resume_state"] = str(named)
    point = find_resume_point(opt, auto_resume=False)
    assert point is not None and point.iteration == 5
    named.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot continue from .*5\.state: not a whole checkpoint \(EOFError"):
        find_resume_point(opt, auto_resume=False)


def test_a_state_that_would_run_code_is_refused(opt: dict) -> None:
    write_checkpoint(opt, 5)
    torch.save({"iter": 5, "trap": Path("x")}, Path(opt["path"]["training_states"]) / "5.state")
    with pytest.raises(CheckpointError):
        find_resume_point(opt, auto_resume=True)


def test_weights_of_the_state_replace_pretrained_ones(opt: dict) -> None:
    write_checkpoint(opt, 5)
    opt["path"] |= {"pretrain_network_g": "elsewhere.pth", "param_key_g": "params_ema", "strict_load_g": False}
    point = find_resume_point(opt, auto_resume=True)
    assert point is not None
    point_to_weights(opt, point)
    assert opt["path"]["pretrain_network_g"].endswith("net_g_5.pth")
    assert (opt["path"]["param_key_g"], opt["path"]["strict_load_g"]) == ("params", True)


@pytest.mark.parametrize(("keep", "left"), [(None, [2, 4, 10]), (2, [4, 10]), (1, [10])])
def test_pruning_keeps_the_newest(opt: dict, keep: int | None, left: list[int]) -> None:
    for iteration in (2, 4, 10):
        write_checkpoint(opt, iteration)
    (Path(opt["path"]["models"]) / "net_g_latest.pth").touch()
    prune_checkpoints(opt, keep)
    states = list_states(Path(opt["path"]["training_states"]))
    models = {path.name for path in Path(opt["path"]["models"]).iterdir()}
    assert [int(state.stem) for state in states] == left
    assert models == {"net_g_latest.pth"} | {f"net_g_{iteration}.pth" for iteration in left}
