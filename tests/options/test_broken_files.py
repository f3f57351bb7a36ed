"""Broken option files: each gives one message that names file, line, key and what would be right."""

from __future__ import annotations

import contextlib
import functools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mambair.options import OptionsError, load_options

Write = Callable[..., Path]
Refused = Callable[..., list[str]]
Changes = list[tuple[str, str]]

BROKEN: dict[str, tuple[Changes, list[str]]] = {
    # misspelt keys, at each level
    "top level": ([("manual_seed: 1", "manual_sed: 1")], ["4: manual_sed: unknown key; did you mean manual_seed?"]),
    "section": (
        [("train:\n  total_iter", "trian:\n  total_iter")],
        [
            "1: train: this required section is missing; files without it are for test.py",
            "25: trian: unknown key; did you mean train?",
        ],
    ),
    "path": (
        [("pretrain_network_g", "pretrained_network_g")],
        [
            "24: path.pretrained_network_g: unknown key; did you mean pretrain_network_g?",
        ],
    ),
    "train": (
        [("total_iter", "total_iters")],
        [
            "26: train.total_iters: unknown key; did you mean total_iter?",
            "25: train.total_iter: this required key is missing",
        ],
    ),
    "optimiser": (
        [("lr: 1e-4", "learning_rate: 1e-4")],
        [
            "29: train.optim_g.learning_rate: Adam has no argument 'learning_rate'; known here: amsgrad, ",
        ],
    ),
    "schedule": (
        [("milestones", "milestone")],
        [
            "33: train.scheduler.milestone: unknown key; did you mean milestones?",
            "31: train.scheduler.milestones: this required key is missing",
        ],
    ),
    "loss": (
        [("type: L1Loss", "type: L1Loss\n    los_weight: 1.")],
        [
            "36: train.pixel_opt.los_weight: L1Loss has no argument 'los_weight'; did you mean loss_weight?",
        ],
    ),
    "validation": (
        [("val_freq", "val_frq")],
        [
            "37: val.val_frq: unknown key; did you mean val_freq?",
            "12: datasets.val: datasets.val is never used: val.val_freq (steps between validations) is missing",
        ],
    ),
    "metric": (
        [("crop_border", "crop_boarder")],
        [
            "41: val.metrics.psnr.crop_boarder: calculate_psnr has no argument 'crop_boarder'; did you mean ",
            "39: val.metrics.psnr: the required key val.metrics.psnr.crop_border is missing",
        ],
    ),
    "logger": (
        [("print_freq", "print_frequency")],
        [
            "43: logger.print_frequency: unknown key; did you mean print_freq?",
        ],
    ),
    "data set": (
        [("gt_size: 16", "gt_size: 16\n    use_flip: true")],
        [
            "11: datasets.train.use_flip: unknown key; did you mean use_hflip?",
        ],
    ),
    "another data set's key": (
        [("type: BicubicDataset", "type: BicubicDataset\n    dataroot_lq: lq")],
        [
            "14: datasets.val.dataroot_lq: unknown key; did you mean dataroot_gt?",
        ],
    ),
    "phase": (
        [("  val:\n    type", "  valid:\n    type")],
        [
            "12: datasets.valid: unknown phase; did you mean val?",
        ],
    ),
    # arguments of the network
    "network argument": (
        [("embed_dim", "embed_dims")],
        [
            "18: network_g.embed_dims: MambaIR has no argument 'embed_dims'; did you mean embed_dim?",
        ],
    ),
    "network argument of v2": (
        [("d_state: 2", "inner_rank: 32")],
        [
            "20: network_g.inner_rank: MambaIR has no argument 'inner_rank'",
        ],
    ),
    "network type": (
        [("type: MambaIR\n", "type: MamabIR\n")],
        [
            "16: network_g.type: no architecture named 'MamabIR'; did you mean 'MambaIR'",
            "; your own comes in by --import",
        ],
    ),
    "network without type": (
        [("type: MambaIR\n", "img_size: 64\n")],
        [
            "15: network_g: the required key network_g.type is missing",
        ],
    ),
    "network argument of wrong type": (
        [("embed_dim: 8", "embed_dim: eight")],
        [
            "18: network_g.embed_dim: found 'eight'; a whole number is right",
        ],
    ),
    "a fraction for a whole number": (
        [("embed_dim: 8", "embed_dim: 8.5")],
        [
            "18: network_g.embed_dim: found 8.5; a whole number is right",
        ],
    ),
    "no list": (
        [("depths: [1]", "depths: 1")],
        [
            "19: network_g.depths: found 1; a list, each item a whole number is right",
        ],
    ),
    "a value the class refuses": (
        [("upsampler: pixelshuffledirect", "upsampler: nearest+conv")],
        [
            "15: network_g: MambaIR refuses these values: MambaIR has no upsampler 'nearest+conv'",
        ],
    ),
    # wrong types
    "text for a number": (
        [("total_iter: 10", "total_iter: ten")],
        [
            "26: train.total_iter: found 'ten'; a whole number is right",
        ],
    ),
    "yes is text": (
        [("val_freq: 5", "val_freq: 5\n  save_img: yes")],
        [
            "38: val.save_img: found 'yes'; true or false is right",
        ],
    ),
    "zero steps": (
        [("total_iter: 10", "total_iter: 0")],
        [
            "26: train.total_iter: found 0; greater than or equal to 1 is right",
        ],
    ),
    "a list for a section": (
        [("logger:\n  print_freq: 1", "logger: [1]")],
        [
            "42: logger: found [1]; a mapping of keys and values is right",
        ],
    ),
    "null for a number": (
        [("scale: 4\nmanual", "scale: ~\nmanual")],
        ["3: scale: found nothing (null); a whole number is right"],
    ),
    "a number for a name": ([("name: small", "name: 7")], ["1: name: found 7; text is right"]),
    "num_gpu": ([("manual_seed: 1", "num_gpu: all")], ["4: num_gpu: found 'all'; a whole number or 'auto' is right"]),
    "a mapping for an optimiser": (
        [("lr: 1e-4", "lr: {g: 1e-4}")],
        [
            "29: train.optim_g.lr: found a mapping with g; a number is right",
        ],
    ),
    "betas": ([("[0.9, 0.99]", "0.9")], ["30: train.optim_g.betas: found 0.9; a list of 2 values is right"]),
    "type that is no text": (
        [("type: L1Loss", "type: 1")],
        [
            "35: train.pixel_opt.type: found 1; the name of a class is right",
        ],
    ),
    # names nobody knows
    "model type": (
        [("model_type: RestorationModel", "model_type: RestorationModl")],
        [
            "2: model_type: no model type named 'RestorationModl'; did you mean 'RestorationModel'",
        ],
    ),
    "data set type": (
        [("type: BicubicDataset", "type: BicubicDatasets")],
        [
            "13: datasets.val.type: no data set named 'BicubicDatasets'; did you mean 'BicubicDataset'",
        ],
    ),
    "loss type": (
        [("type: L1Loss", "type: L3Loss")],
        [
            "35: train.pixel_opt.type: no loss named 'L3Loss'; did you mean 'L1Loss'",
        ],
    ),
    "metric type": (
        [("calculate_psnr", "calculate_psrn")],
        [
            "40: val.metrics.psnr.type: no metric named 'calculate_psrn'; did you mean 'calculate_psnr'",
        ],
    ),
    "optimiser type": (
        [("type: Adam", "type: Adem")],
        [
            "28: train.optim_g.type: no optimiser named 'Adem'; did you mean Adam",
        ],
    ),
    "schedule type": (
        [("type: MultiStepLR", "type: MultistepLR")],
        [
            "32: train.scheduler.type: no schedule named 'MultistepLR'; did you mean MultiStepLR",
        ],
    ),
    # missing keys
    "no name": ([("name: small\n", "")], ["1: name: this required key is missing"]),
    "no scale": ([("scale: 4\nmanual", "manual")], ["1: scale: this required key is missing"]),
    "no network": (
        [
            (
                "network_g:\n  type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n"
                "  mlp_ratio: 1.2\n  upsampler: pixelshuffledirect\n",
                "",
            )
        ],
        [
            "1: network_g: this required section is missing",
        ],
    ),
    "no loss": ([("  pixel_opt:\n    type: L1Loss\n", "")], ["25: train: the required key train.pixel_opt is missing"]),
    "no batch size": (
        [("    total_batch_size: 2\n", "")],
        [
            "6: datasets.train: the batch size is missing; write total_batch_size",
        ],
    ),
    "no patch size": (
        [("    gt_size: 16\n", "")],
        ["6: datasets.train.gt_size: phase train needs the side of the patches"],
    ),
    "no folder of inputs": (
        [("    dataroot_lq: lq\n", "")],
        ["6: datasets.train.dataroot_lq: this required key is missing"],
    ),
    # several at once
    "two faults": (
        [("embed_dim", "embed_dims"), ("total_iter: 10", "total_iter: 1.5")],
        [
            "18: network_g.embed_dims: MambaIR has no argument 'embed_dims'; did you mean embed_dim?",
            "26: train.total_iter: found 1.5; a whole number is right",
        ],
    ),
    "five faults": (
        [
            ("name: small", "name: a/b"),
            ("dataroot_lq: lq", "dataroot_lq: lqs"),
            ("upscale: 4", "upscale: 3"),
            ("type: L1Loss", "type: L7Loss"),
            ("print_freq: 1", "print_freq: never"),
        ],
        [
            "1: name: ",
            "9: datasets.train.dataroot_lq: ",
            "17: network_g.upscale: ",
            "35: train.pixel_opt.type: ",
            "43: logger.print_freq: ",
        ],
    ),
    # not YAML, or too much of it; tests/options/test_yaml_reader.py has more
    "tab": ([("  total_iter", "\ttotal_iter")], ["26: a tab stands here; YAML indents with spaces only"]),
    "duplicate key": (
        [("scale: 4\nmanual", "scale: 4\nscale: 2\nmanual")],
        ["4: scale: written twice (first in line 3)"],
    ),
    "python tag": (
        [("name: small", "name: !!python/object/apply:os.getcwd []")],
        [
            "1: name: the tag !!python/object/apply:os.getcwd is refused",
        ],
    ),
    "bomb": (
        [
            (
                "name: small",
                "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
            )
        ],
        ["1: expands to more than 20,000 values; remove the aliases"],
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


def test_there_are_enough_broken_files() -> None:
    assert len(BROKEN) >= 40


def test_images_without_partner_are_named(write: Write, workspace: Path) -> None:
    Image.new("RGB", (16, 16)).save(workspace / "gt" / "lonely.png")
    with pytest.raises(OptionsError, match=r"file\.yml:9: datasets\.train\.dataroot_lq: .*no partner of lonely\.png"):
        load_options(write(), is_train=True)


@pytest.mark.parametrize(
    ("is_train", "message"),
    [
        (True, "datasets: the required key datasets.train is missing (files for test.py have none)"),
        (False, "datasets: no data set to test on; write datasets.test_1 (files for train.py have none)"),
    ],
    ids=["test file for train.py", "train file for test.py"],
)
def test_the_wrong_program_is_named(write: Write, is_train: bool, message: str) -> None:
    path = write(is_train=not is_train)
    with pytest.raises(OptionsError) as caught:
        load_options(path, is_train=is_train)
    assert message in str(caught.value)


def test_train_py_exits_with_2_and_starts_nothing(write: Write, workspace: Path, repository: Path) -> None:
    path = write(("scale: 4\nmanual", "scalee: 4\nmanual"))
    command = [sys.executable, str(repository / "mambair" / "train.py"), "-opt", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=workspace, check=False)
    assert done.returncode == 2, done.stderr
    assert f"{path}:3: scalee: unknown key; did you mean scale?" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(entry.name for entry in workspace.iterdir()) == ["empty", "file.yml", "gt", "lq", "weights.pth"]


def test_test_py_exits_with_2(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    from mambair.test import main

    path = write(("scale: 4\nmanual", "scalee: 4\nmanual"), is_train=False)
    assert main(["-opt", str(path)]) == 2
    assert f"{path}:3: scalee: unknown key; did you mean scale?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("is_train", [True, False], ids=["train", "test"])
def test_nothing_but_an_options_error_whatever_stands_at_a_key(write: Write, is_train: bool) -> None:
    path = write(is_train=is_train)
    for key in _keys(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for value in (None, True, -1, 0.5, math.nan, 1e17, "", "x", "a/b", [], [None], {}, {"type": "x"}, {"type": []}):
            content = yaml.safe_load(write(is_train=is_train).read_text(encoding="utf-8"))
            parent = functools.reduce(lambda node, part: node[part], key[:-1], content)
            parent[key[-1]] = value
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            with contextlib.suppress(OptionsError):
                load_options(path, is_train=is_train)


def _keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _keys(value, (*path, key))
