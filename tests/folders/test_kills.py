"""Real processes, really killed, and several at once: nothing half-written, nothing done twice, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, and kills what it forked")]
FILES = 40

# One process that has imported everything forks those that work and die: twenty imports of torch would take a minute.
START = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from torch import nn
torch.set_num_threads(1)
from mambair.inference.restorer import Restorer
from mambair.folders import pipeline, resume
from mambair.folders.manifest import Manifest
from mambair.inference.memory import peak_bytes
from mambair.system.path_gate import Folder
from mambair.folders.plan import plan_jobs
source, out = Path(sys.argv[2]), Path(sys.argv[3])

marks = os.pipe()  # a byte for each call of the network

class Replicate(nn.Module):
    upscale, in_chans, seconds = 2, 3, 0.015
    def forward(self, x):
        os.write(marks[1], b".")
        time.sleep(self.seconds)
        return x.repeat_interleave(2, -2).repeat_interleave(2, -1)

with torch.inference_mode():
    peak_bytes(Replicate(), torch.zeros(1, 3, 8, 8))  # torch imports much for that: here, not in each child

def work():
    settings = {"weights": "abc"}
    restorer = Restorer(Replicate(), device="cpu", tile=64)
    ledger = resume.Ledger(out, settings, details=True)
    return pipeline.restore_files(restorer, plan_jobs(source, out), ledger=ledger, quiet=True)

def forked(prepare=lambda: None):
    child = os.fork()
    if child == 0:
        try:
            prepare()
            os._exit(0 if work().complete else 1)
        finally:
            os._exit(9)
    return child

def kill_at_work(child):  # at any moment from its first call on, however slow the machine is
    for _ in range(random.randint(1, 5)):
        os.read(marks[0], 1)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
KILLS = """
Replicate.seconds = 0.1
random.seed(0)
killed = 0
for _ in range(20):
    marks = os.pipe()
    child = forked()
    kill_at_work(child)
    killed += ended(child) == -9
Replicate.seconds = 0.0
assert ended(forked()) == 0
print(killed)
"""
KILLS_OF_TWO = """
Replicate.seconds = 0.1
random.seed(1)
killed = 0
for _ in range(10):
    marks = os.pipe()
    for child in (forked(), forked()):
        kill_at_work(child)  # the second one lives longer, and takes over
        killed += ended(child) == -9
Replicate.seconds = 0.0
assert ended(forked()) == 0
print(killed)
"""
CRASHES = """
def die(*arguments, **options):
    os._exit(7)

def after(owner, name):
    function = getattr(owner, name)
    def dying(*arguments, **options):
        function(*arguments, **options)
        os._exit(7)
    setattr(owner, name, dying)

POINTS = {
    "before the rename": lambda: setattr(Folder, "rename", die),
    "after the rename": lambda: after(Folder, "rename"),
    "before the record": lambda: setattr(Manifest, "append", die),
    "after the record": lambda: after(Manifest, "append"),
    "with the intent": lambda: after(resume.Ledger, "intend"),
    "before the release": lambda: setattr(resume.file_locks.Claim, "release", die),
    "after the release": lambda: after(resume.file_locks.Claim, "release"),
}
for prepare in POINTS.values():
    assert ended(forked(prepare)) == 7
assert ended(forked()) == 0
"""
SHARED = """
first, second, victim = forked(), forked(), forked()
time.sleep(0.8)
os.kill(victim, signal.SIGKILL)
assert ended(victim) == -9
assert (ended(first), ended(second)) == (0, 0)
print(victim)
"""


def drive(program: str, repository: Path, folder: Path) -> str:
    """Run a program beside a fresh folder of pictures and return what it printed."""
    (folder / "in" / "sub").mkdir(parents=True)
    for index in range(FILES):
        values = np.random.default_rng(index).integers(0, 256, (70 + index, 100, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / "in" / ("sub" if index % 2 else ".") / f"{index}.png")
    command = [sys.executable, "-c", START + program, str(repository), str(folder / "in"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def check(folder: Path) -> list[dict[str, Any]]:
    """All results are there, right, and recorded once each; nothing else is."""
    out = folder / "out"
    sources = sorted(path.relative_to(folder / "in") for path in (folder / "in").rglob("*.png"))
    found = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert found == sorted([*sources, Path("manifest.jsonl")]), "nothing lost, nothing left over"
    for name in sources:
        source, target = np.array(Image.open(folder / "in" / name)), np.array(Image.open(out / name))
        assert np.array_equal(target, source.repeat(2, 0).repeat(2, 1)), f"{name} is not whole"
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert all(record["status"] == "done" for record in records)
    counts = Counter(record["output"] for record in records)
    assert counts == {name.as_posix(): 1 for name in sources}, "each done once"
    assert not (out / ".mambair").exists()
    return records


def test_twenty_kills_at_any_moment(tmp_path: Path, repository: Path) -> None:
    assert drive(KILLS, repository, tmp_path) == "20", "it was at work each time"
    assert len({record["process"] for record in check(tmp_path)}) > 3, "the kills came in between"


def test_twenty_kills_of_two_at_once(tmp_path: Path, repository: Path) -> None:
    assert drive(KILLS_OF_TWO, repository, tmp_path) == "20", "each was at work"
    assert len({record["process"] for record in check(tmp_path)}) > 3, "and many had finished something"


def test_a_death_at_each_of_the_delicate_points(tmp_path: Path, repository: Path) -> None:
    drive(CRASHES, repository, tmp_path)
    check(tmp_path)


def test_three_processes_share_a_folder_and_one_is_killed(tmp_path: Path, repository: Path) -> None:
    victim = int(drive(SHARED, repository, tmp_path))
    workers = Counter(record["process"] for record in check(tmp_path))
    assert len([process for process in workers if process != victim]) == 2, "both survivors worked"
