"""What importing costs: heavy packages come in only where they are needed, and ``--help`` answers without torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONAL = {"tifffile", "imagecodecs", "timm", "torchvision", "basicsr", "pydantic"}
REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND_FOLDERS = ("mambair", "inference", "scripts", "benchmarks")


def commands() -> list[str]:
    """Every file that is meant to be run, relative to the repository."""
    return [
        str(path.relative_to(REPOSITORY))
        for folder in COMMAND_FOLDERS
        for path in sorted((REPOSITORY / folder).glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


def clean_environment() -> dict[str, str]:
    """Without PYTHONPATH: the commands must find the package by themselves."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def imported_by(statements: list[str]) -> list[set[str]]:
    """Top-level packages in sys.modules after each statement, in one fresh interpreter."""
    code = "\n".join(
        ["import json, sys", f"sys.path.insert(0, {str(REPOSITORY)!r})", "found = []"]
        + [f"{each}\nfound.append(sorted({{name.split('.')[0] for name in sys.modules}}))" for each in statements]
        + ["print(json.dumps(found))"]
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [set(names) for names in json.loads(done.stdout.splitlines()[-1])]


def test_the_package_is_free() -> None:
    (found,) = imported_by(["import mambair"])
    assert not found & {*OPTIONAL, "torch", "numpy", "PIL", "yaml"}


def test_networks_need_torch_only() -> None:
    statements = ["import torch", "import mambair.ops", "import mambair.layers", "import mambair.archs"]
    torch_alone, *found = imported_by(statements)
    for statement, names in zip(statements[1:], found, strict=True):
        assert not (names - torch_alone) & OPTIONAL, f"{statement} brings in {(names - torch_alone) & OPTIONAL}"


def test_there_are_commands() -> None:
    assert {"mambair/train.py", "mambair/test.py", "inference/inference_sr.py"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_help_answers_without_torch(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(REPOSITORY / command), "--help"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    rest = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert done.returncode == 0, rest
    assert "usage:" in done.stdout
    assert "argparse" in imported, "the list of imports was not read"
    heavy = sorted({"torch", "tifffile", "imagecodecs", "torchvision", "basicsr", "timm"} & imported)
    assert not heavy, f"{command} --help imports {heavy}"
    assert list(tmp_path.iterdir()) == [], f"{command} --help leaves files behind"


WITHOUT_POSIX = """
import importlib, pkgutil, signal, sys
sys.path.insert(0, {repository!r})
import torch, numpy, PIL.Image, safetensors.torch, tqdm.auto, yaml  # others may need them
import concurrent.futures.process, multiprocessing, shutil, subprocess, tempfile
importlib.import_module("torch._dynamo")
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # importing it is an ImportError
del signal.SIGHUP
import mambair
names = [each.name for each in pkgutil.walk_packages(mambair.__path__, "mambair.")]
failed = []
for name in names:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{{name}}: {{error}}")
print(len(names), *failed, sep="\\n")
"""


def test_the_package_needs_no_module_that_windows_lacks(tmp_path: Path) -> None:
    code = WITHOUT_POSIX.format(repository=str(REPOSITORY))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, *failed = done.stdout.splitlines()
    missing = re.compile(r"fcntl|resource|pwd|grp|termios|SIGHUP")
    assert int(count) > 150 and [line for line in failed if missing.search(line)] == []
