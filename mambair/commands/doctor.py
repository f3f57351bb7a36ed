"""``mambair doctor``: one page about this machine and what mambair can use on it, to be pasted into an issue."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mambair
from mambair.commands.arguments import command_parser
from mambair.system.console import printable, say
from mambair.system.exit_codes import DONE
from mambair.system.machine import processor_name

EXAMPLES = """
mambair doctor
mambair doctor --json > machine.json
"""
Rows = dict[str, str]
# distribution -> what it is for, and how it comes
LIBRARIES = {
    "numpy": "arrays",
    "Pillow": "images of 8 bits",
    "tifffile": "images of 16 bits and floats",
    "imagecodecs": "images of 16 bits and floats",
    "isal": "quicker PNG and TIFF",
    "safetensors": "files of weights",
    "pydantic": "option files",
    "timm": "backbones: pip install 'mambair[backbones]'",
    "spandrel": "networks of other families: pip install 'mambair[spandrel]'",
    "torchvision": "networks of other families: pip install 'mambair[spandrel]'",
    "lmdb": "training data in one file: pip install 'mambair[train]'",
    "tensorboard": "curves of a training: pip install 'mambair[train]'",
    "wandb": "curves of a training: pip install 'mambair[wandb]'",
    "pytorch-optimizer": "Adan, SOAP, schedule-free AdamW: pip install 'mambair[optimizers]'",
    "matplotlib": "curves in the training report: pip install 'mambair[train]'",
    "pillow-heif": "HEIC and HEIF: pip install 'mambair[heif]'",
    "pillow-jxl-plugin": "JPEG XL: pip install 'mambair[jxl]'",
    "basicsr": "option files and classes of BasicSR: pip install basicsr",
    "triton": "scans on NVIDIA GPUs; comes with torch for CUDA on Linux",
    "mamba-ssm": "another scan on NVIDIA GPUs: pip install mamba-ssm",
}
# what the tests of this version have run on
NOT_COMPILED = "not compiled yet: that is done at the first scan (5 to 20 s), or by: python -m mambair.ops"
TESTED = "Linux on x86-64, CPU, Python 3.10 to 3.13, torch 2.13 and 2.14"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page.

    Args:
        arguments: default: the command line's.

    Returns:
        0, whatever was found; wrong usage leaves through argparse's SystemExit(2).
    """
    parser = command_parser(
        "mambair doctor",
        "Show what mambair finds on this machine, for you and for whoever reads your issue. The home folder is "
        "shown as ~ and your name as USER.",
        EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="as JSON: an object of sections, each an object of texts")
    options = parser.parse_args(arguments)
    page = examine()
    if options.json:
        say(json.dumps(page, indent=2, allow_nan=False))
        return DONE
    for title, rows in page.items():
        say(f"{title}")
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            say(f"  {name:<{width}}  {value}")
    return DONE


def examine() -> dict[str, Rows]:
    """All sections; what cannot be found out is said in its place."""
    sections: dict[str, Callable[[], Rows]] = {
        "mambair": _package,
        "machine": _machine,
        "torch": _torch,
        "scans on the CPU": lambda: _scans("cpu"),
        "scans on a GPU": lambda: _scans("cuda"),
        "libraries": _libraries,
        "image formats": _formats,
        "folders": _folders,
        "weights": _weights,
        "untried here": _untried,
        "environment": _environment,
    }
    found = {title: _safely(look) for title, look in sections.items()}
    return {title: {name: anonymous(value) for name, value in rows.items()} for title, rows in found.items()}


def _safely(look: Callable[[], Rows]) -> Rows:
    # a report on broken installations may meet any error, and the rest of the page is wanted all the more
    try:
        return look()
    except Exception as error:
        return {"error": f"cannot be found out: {type(error).__name__}: {error}"}


def anonymous(text: str) -> str:
    """``text`` on one line, with ~ for the home folder and USER for the user's name in other paths."""
    try:
        home, user = str(Path.home()), getpass.getuser()
    except (OSError, KeyError, RuntimeError):  # the system knows no user of that number
        return printable(text)
    homes = {home, os.path.realpath(home)} - {os.sep}
    for each in sorted(homes, key=len, reverse=True):
        text = re.sub(rf"{re.escape(each)}(?=[/\\]|\W|$)", "~", text)
    return printable(re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|\W|$)", "USER", text))


def _package() -> Rows:
    return {
        "version": mambair.__version__,
        "folder": str(Path(mambair.__file__).parent),
        "Python": f"{platform.python_version()} ({platform.python_implementation()}), {sys.prefix}",
    }


def _machine() -> Rows:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": processor_name(),
        "cores": f"{os.cpu_count()}, of which this process may use {usable}",
    }
    import torch

    from mambair.inference.memory import free_bytes  # imports torch

    free = free_bytes(torch.device("cpu"))
    return rows | {"free memory": "the system does not say" if free is None else _gigabytes(free)}


def _torch() -> Rows:
    import torch

    rows = {
        "version": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "CUDA": torch.version.cuda or "not built in",
    }
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        rows[f"cuda:{number}"] = f"{facts.name}, {_gigabytes(facts.total_memory)}, {facts.major}.{facts.minor}"
    if torch.version.cuda and not torch.cuda.is_available():
        rows["GPU"] = "none that this torch can use"
    if torch.backends.mps.is_available():
        rows["mps"] = "available"
    return rows


def _scans(device: str) -> Rows:
    from mambair.ops import native
    from mambair.ops.report import backend_rows

    if device == "cpu" and native.would_compile():
        return {"native": NOT_COMPILED}
    return backend_rows(device)


def _libraries() -> Rows:
    rows = {}
    for name, purpose in LIBRARIES.items():
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = f"not installed ({purpose})"
    return rows


def _formats() -> Rows:
    from PIL import features

    kinds = {"jpg": "JPEG", "jpg_2000": "JPEG 2000", "webp": "WebP", "avif": "AVIF", "littlecms2": "colour profiles"}
    return {title: "yes" if features.check(name) else "not in this Pillow" for name, title in kinds.items()}


def _folders() -> Rows:
    from mambair.system.cache_folder import private_folder
    from mambair.weights.fetch import cache_folder

    folders = {
        "compiled scans": private_folder("native"),
        "fetched weights": cache_folder(),
        "temporary files": Path(tempfile.gettempdir()),
        "current folder": Path.cwd(),
    }
    return {name: f"{folder}, {_state_of(folder)}" for name, folder in folders.items()}


def _state_of(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    can = "can" if os.access(existing, os.W_OK) else "CANNOT"
    missing = "" if existing == folder else "not made yet, "
    return f"{missing}{can} be written, {_gigabytes(shutil.disk_usage(existing).free)} free"


def _weights() -> Rows:
    from mambair.weights.fetch import cache_folder
    from mambair.weights.packaged import FOLDER, PACKAGED

    rows = {}
    for (task, degree), name in sorted(PACKAGED.items()):
        path = FOLDER / name
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "MISSING: install the package again"
        rows[f"{task} {degree}" if degree else task] = f"{name}, {size}"
    folder = cache_folder()
    fetched = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".pt", ".safetensors"))
    rows["fetched"] = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in fetched) or "none"
    return rows


def _untried() -> Rows:
    import torch

    python, version = sys.version_info[:2], ".".join(torch.__version__.split(".")[:2])
    applies = {
        platform.system(): sys.platform != "linux",
        platform.machine(): platform.machine().lower() not in ("x86_64", "amd64"),
        f"Python {python[0]}.{python[1]}": not (3, 10) <= python <= (3, 13),
        f"torch {version}": version not in ("2.13", "2.14"),
        "this GPU": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    rows = {name: "no test of this version ran on it" for name, does_apply in applies.items() if does_apply}
    return {"tested on": TESTED, **(rows or {"here": "nothing known"})}


def _environment() -> Rows:
    wanted = re.compile(r"MAMBAIR_\w+|OMP_\w+|MKL_NUM_THREADS|CUDA_VISIBLE_DEVICES|XDG_CACHE_HOME|HF_ENDPOINT")
    found = {name: value for name, value in sorted(os.environ.items()) if wanted.fullmatch(name)}
    # of an address its host and path: no names, passwords and tokens
    found = {name: re.sub(r"(\w+://)(?:\S*@)?([^\s?#]*)\S*", r"\1\2", value) for name, value in found.items()}
    return {**found, "date": time.strftime("%Y-%m-%d", time.gmtime())}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
