"""Every command on standard streams of every kind: missing, bare, closed, a pipe without a reader, a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mambair.cli import COMMANDS
from mambair.weights.checkpoint import write_checkpoint

OWN_NETWORK = """
import torch
from mambair.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class Larger(torch.nn.Module):
    def __init__(self, upscale: int = 2):
        super().__init__()
        self.upscale, self.in_chans = upscale, 3
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.factor * x.repeat_interleave(self.upscale, 2).repeat_interleave(self.upscale, 3)
"""
OPTIONS = {"name": "streams", "model_type": "RestorationModel", "scale": 2, "num_gpu": 0}
TRAINING = {
    **OPTIONS,
    "datasets": {
        "train": {"type": "BicubicDataset", "dataroot_gt": "data/Set5", "gt_size": 8, "total_batch_size": 1},
        "val": {"name": "Two", "type": "BicubicDataset", "dataroot_gt": "data/Set5"},
    },
    "network_g": {"type": "Larger"},
    "train": {"total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
    "val": {"val_freq": 2, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
}
TESTING = {
    **OPTIONS,
    "datasets": {"test_1": {"name": "Two", "type": "BicubicDataset", "dataroot_gt": "data/Set5"}},
    "path": {"pretrain_network_g": "larger.safetensors"},
    "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
}
OWN = ["--import", "own.py"]
WEIGHTS = ["--weights", "larger.safetensors", *OWN]
WORK = {
    "train": ["train", "-opt", "train.yml", *OWN],
    "test": ["test", "-opt", "test.yml", *OWN],
    "restore": ["restore", "-i", "data/Set5", "-o", "out", *WEIGHTS],
    "benchmark": ["benchmark", "--suite", "sr", "--data", "data", "--sets", "Set5", "--output", "table", *WEIGHTS],
    "profile": ["profile", "Larger", "--size", "16x16", "--repeats", "1", *OWN],
    "weights": ["weights", "list"],
    "doctor": ["doctor"],
    "data": ["data", "prepare", "lr", "data/Set5", "small", "--scale", "2", "--workers", "1"],
    "data lint": ["data", "lint", "--gt", "data/Set5", "--workers", "1"],
    "data show": ["data", "show", "train.yml", "-o", "sheet.png", *OWN],
    "data list": ["data", "download", "--list"],
    "restore help": ["restore", "--help"],
    "help": ["--help"],
    "version": ["--version"],
}
WITHOUT_TORCH = ("data list", "restore help", "help", "version")
MADE = ("experiments/streams/models/net_g_latest.pth", "results/streams/metrics.md", "out/1.png", "table/results.md")
RUN_ALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from mambair.cli import main

class Bare:
    def __init__(self):
        self.text = ""
    def write(self, text):
        self.text += text

class Gone(Bare):
    def write(self, *text):
        raise OSError(5, "Input/output error")
    isatty = flush = fileno = write

def closed():
    stream = open("closed.txt", "w")
    stream.close()
    return stream

make = {"none": lambda: None, "bare": Bare, "gone": Gone, "closed": closed}[sys.argv[2]]
codes = {}
for name, arguments in json.loads(sys.argv[3]).items():
    sys.stdout, sys.stderr = streams = make(), make()
    try:
        codes[name] = main(arguments)
    except BaseException as error:
        codes[name] = repr(error)
    if make is Bare and not streams[0].text:
        codes[name] = streams[1].text or "nothing was printed"
sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
json.dump(codes, open("codes.json", "w"))
"""
# numpy's and scipy's own imports meet it, which end in a RecursionError when they are interrupted
INTERRUPTED = """
import signal, sys
sys.path.insert(0, sys.argv.pop(1))
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, path, target=None):
        if name in ("numpy.dtypes", "PIL.Image"):
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
from mambair.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, a network, and the option files."""
    (tmp_path / "data" / "Set5").mkdir(parents=True)
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "Set5" / f"{index}.png")
    (tmp_path / "own.py").write_text(OWN_NETWORK, encoding="utf-8")
    metadata = {"mambair.arch": "Larger", "mambair.kwargs": json.dumps({"upscale": 2})}
    write_checkpoint(tmp_path / "larger.safetensors", {"factor": torch.ones(1)}, metadata)
    (tmp_path / "train.yml").write_text(yaml.safe_dump(TRAINING), encoding="utf-8")
    (tmp_path / "test.yml").write_text(yaml.safe_dump(TESTING), encoding="utf-8")
    return tmp_path


def start(name: str, folder: Path, repository: Path, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "mambair", *WORK[name]]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    return subprocess.Popen(command, cwd=folder, env=environment, **options)  # type: ignore[call-overload]


def test_the_table_names_every_command() -> None:
    assert {name.split()[0] for name in WORK} >= set(COMMANDS)


KINDS = ["bare", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("none", "gone", "closed"))]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_bare_streams(kind: str, folder: Path, repository: Path) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", RUN_ALL, str(repository), kind, json.dumps(WORK)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    codes = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
    assert codes == {**dict.fromkeys(WORK, 0), "restore help": "SystemExit(0)"}
    assert all((folder / made).exists() for made in MADE), sorted(folder.rglob("*"))


def heavy_are_slow(*quick: str) -> list[object]:
    marks = {name: () if name in (*WITHOUT_TORCH, *quick) else (pytest.mark.slow,) for name in WORK}
    return [pytest.param(name, marks=marks[name]) for name in WORK]


@pytest.mark.skipif(os.name != "posix", reason="pipes and descriptors")
@pytest.mark.parametrize("name", heavy_are_slow("weights"))
def test_a_pipe_without_a_reader(name: str, folder: Path, repository: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with start(name, folder, repository, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stderr is not None
        shown = process.stderr.read().decode()
    assert process.returncode == 0, shown
    assert "Broken pipe" not in shown and "Traceback" not in shown and "Exception ignored" not in shown


@pytest.mark.skipif(os.name != "posix", reason="pipes and descriptors")
@pytest.mark.parametrize("name", heavy_are_slow())
def test_descriptors_closed_before_the_start(name: str, folder: Path, repository: Path) -> None:
    with start(name, folder, repository, preexec_fn=lambda: os.closerange(0, 3)) as process:
        pass
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("name", ["data list", "version", "restore help"])
def test_output_lost_on_a_full_disk_is_no_success(name: str, folder: Path, repository: Path) -> None:
    pipe = subprocess.PIPE
    with Path("/dev/full").open("wb") as full, start(name, folder, repository, stdout=full, stderr=pipe) as process:
        assert process.stderr is not None
        shown = process.stderr.read().decode()
    assert process.returncode == 1
    assert shown == "standard output could not be written: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("name", heavy_are_slow("restore", "train")[:9])
def test_ctrl_c_while_libraries_load(name: str, folder: Path, repository: Path) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", INTERRUPTED, str(repository), *WORK[name]]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and "\nended by SIGINT" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
