"""SIGHUP, SIGINT and SIGTERM end each command in order: its exit code, nothing half-written, what is finished stays."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mambair.weights.checkpoint import write_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

SLOW_NETWORK = """
import time
import torch
from mambair.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class SlowNet(torch.nn.Module):
    def __init__(self, upscale: int = 2):
        super().__init__()
        self.upscale, self.in_chans = upscale, 3
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        if not x.is_meta:
            with open("calls.txt", "a") as calls:
                calls.write("x")
            time.sleep(0.2)
        return self.factor * x.repeat_interleave(self.upscale, 2).repeat_interleave(self.upscale, 3)
"""
NUMBERS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}
TRAINING = {
    "name": "slow",
    "model_type": "RestorationModel",
    "scale": 2,
    "num_gpu": 0,
    "datasets": {
        "train": {"type": "BicubicDataset", "dataroot_gt": "data/Set5", "gt_size": 8, "total_batch_size": 1},
    },
    "network_g": {"type": "SlowNet"},
    "train": {"total_iter": 1000, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
}
TESTING = {
    "name": "slow",
    "model_type": "RestorationModel",
    "scale": 2,
    "num_gpu": 0,
    "datasets": {"test_1": {"name": "Five", "type": "BicubicDataset", "dataroot_gt": "data/Set5"}},
    "path": {"pretrain_network_g": "slow.safetensors"},
    "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
}
OWN = ["--import", "slow.py"]
QUIET = ["--quiet", "--weights", "slow.safetensors", *OWN]
COMMANDS = {
    "train": ["train", "-opt", "train.yml", *OWN],
    "test": ["test", "-opt", "test.yml", *OWN],
    "restore": ["restore", "-i", "data/Set5", "-o", "out", *QUIET],
    "benchmark": ["benchmark", "--suite", "light-sr", "--data", "data", "--sets", "Set5", "--output", "out", *QUIET],
    "profile": ["profile", "SlowNet", "--size", "16x16", "--repeats", "1000", *OWN],
    "prepare": ["data", "prepare", "lr", "many", "out", "--scale", "2", "--workers", "1", "--quiet"],
    "prepare in processes": ["data", "prepare", "lr", "many", "out", "--scale", "2", "--workers", "2", "--quiet"],
    "lint": ["data", "lint", "--gt", "many", "--workers", "1"],
    "download": ["data", "download", "Slow", "--root", "out", "--quiet"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, a network that takes its time, and the option files."""
    (tmp_path / "data" / "Set5").mkdir(parents=True)
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "Set5" / f"{index}.png")
    (tmp_path / "slow.py").write_text(SLOW_NETWORK, encoding="utf-8")
    metadata = {"mambair.arch": "SlowNet", "mambair.kwargs": json.dumps({"upscale": 2})}
    write_checkpoint(tmp_path / "slow.safetensors", {"factor": torch.ones(1)}, metadata)
    (tmp_path / "train.yml").write_text(yaml.safe_dump(TRAINING), encoding="utf-8")
    (tmp_path / "test.yml").write_text(yaml.safe_dump(TESTING), encoding="utf-8")
    return tmp_path


@pytest.fixture
def address() -> Iterator[str]:
    """A server that sends the first half of a file, and then nothing for long."""
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(2**21))
            self.send_header("ETag", '"one"')
            self.end_headers()
            self.wfile.write(bytes(2**20))
            done.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/half.zip"
        done.set()
        server.shutdown()
        thread.join()


def start(command: list[str], folder: Path, repository: Path, preparation: str = "") -> subprocess.Popen[str]:
    """The command as the leader of a process group; whoever keeps its pipes open is waited for at its end."""
    program = f"import sys; {preparation}import mambair.cli; sys.exit(mambair.cli.main(sys.argv[1:]))"

    def with_default_signals() -> None:
        for name in NUMBERS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository), "no_proxy": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=with_default_signals,
    )


def wait_until(process: subprocess.Popen[str], path: Path, size: int) -> None:
    """Wait for a file, given with wildcards in its name, of at least that size."""
    for _ in range(6000):
        if any(found.stat().st_size >= size for found in path.parent.glob(path.name)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no {path}: {process.communicate()}")


def interrupt(process: subprocess.Popen[str], name: str, *, group: bool = False) -> str:
    """Send the signal; returns what the process wrote to standard error."""
    (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
    _, shown = process.communicate(timeout=30)
    assert process.returncode == NUMBERS[name], shown
    # a SIGHUP to the group also ends multiprocessing's own tracker of resources, which says so in a traceback
    assert "mambair" not in shown.partition("Traceback")[2]
    return shown


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if ".tmp" in path.name]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        pytest.param(command, name, id=f"{command} {name}", marks=() if quick == name else (pytest.mark.slow,))
        for command, quick in (("restore", "SIGHUP"), ("test", ""), ("benchmark", ""))
        for name in NUMBERS
    ],
)
def test_what_is_finished_stays(command: str, name: str, folder: Path, repository: Path) -> None:
    process = start(COMMANDS[command], folder, repository)
    wait_until(process, folder / "calls.txt", 4)  # so two images are done, warm-up and side by side
    shown = interrupt(process, name)
    assert f"ended by {name}: what is " in shown and "the same command goes on with the rest" in shown
    assert not temporary_files(folder)
    (record,) = (folder / ("results/slow" if command == "test" else "out")).glob("*.jsonl")
    lines = record.read_text(encoding="utf-8").splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)
    (folder / "calls.txt").unlink()
    process = start(COMMANDS[command], folder, repository)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert len((folder / "calls.txt").read_text()) < 5, "what was finished is not done again"


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_the_process_that_measures_ends_too(name: str, folder: Path, repository: Path) -> None:
    process = start(COMMANDS["profile"], folder, repository)
    wait_until(process, folder / "calls.txt", 2)
    shown = interrupt(process, name)  # returns when the other process has closed its pipes, too
    assert f"ended by {name}: give the same command again" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_training_saves(name: str, folder: Path, repository: Path) -> None:
    process = start(COMMANDS["train"], folder, repository)
    wait_until(process, folder / "calls.txt", 2)
    interrupt(process, name)
    assert list((folder / "experiments" / "slow" / "training_states").iterdir())


@pytest.mark.parametrize(
    ("command", "name", "group"),
    [
        pytest.param("prepare", "SIGTERM", False, id="alone"),
        pytest.param("prepare in processes", "SIGHUP", False, id="with workers", marks=pytest.mark.slow),
        pytest.param("prepare in processes", "SIGTERM", True, id="SIGTERM to workers, too", marks=pytest.mark.slow),
        pytest.param("prepare in processes", "SIGHUP", True, id="SIGHUP to workers, too", marks=pytest.mark.slow),
        pytest.param("prepare in processes", "SIGINT", True, id="SIGINT to workers, too", marks=pytest.mark.slow),
    ],
)
def test_prepare_leaves_whole_images(command: str, name: str, group: bool, folder: Path, repository: Path) -> None:
    (folder / "many").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(300):
        Image.fromarray(pixels).save(folder / "many" / f"{index}.png", compress_level=0)
    process = start(COMMANDS[command], folder, repository)
    wait_until(process, folder / "out" / "X2" / "[0-9]*.png", 1)
    shown = interrupt(process, name, group=group)
    assert f"ended by {name}: what is finished stays" in shown
    made = list((folder / "out" / "X2").glob("[0-9]*.png"))
    assert 0 < len(made) < 300 and not temporary_files(folder)
    for path in made:
        Image.open(path).load()


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_lint_ends(name: str, folder: Path, repository: Path) -> None:
    (folder / "many").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for index in range(500):
        Image.fromarray(pixels).save(folder / "many" / f"{index}.png", compress_level=0)
    process = start(COMMANDS["lint"], folder, repository)
    assert process.stderr is not None
    while "image/s" not in process.stderr.read(20):
        pass
    assert f"ended by {name}: nothing was changed" in interrupt(process, name)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_download_keeps_what_it_has(name: str, folder: Path, repository: Path, address: str) -> None:
    preparation = (
        "from mambair.data_tools import catalogue as c; "
        f"f = c.RemoteFile({address!r}, 'half.zip'); "
        "c.DATASETS['Slow'] = c.RemoteDataset('Slow', '', '', (c.Part(f, 'half', 'Slow', 1),)); "
    )
    process = start(COMMANDS["download"], folder, repository, preparation)
    wait_until(process, folder / "out" / ".downloads" / "half.zip.part", 2**18)
    assert f"ended by {name}: what is finished stays" in interrupt(process, name)
    names = sorted(path.name for path in (folder / "out" / ".downloads").iterdir())
    assert names == ["half.zip.part", "half.zip.part.json"]
