"""Fixtures shared by all tests: where the exact reference outputs and the larger development data are."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden() -> Path:
    """Exact reference outputs that travel with the project."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def development_data() -> Path:
    """A folder with ``data/`` (public test images) that may not be shipped; MAMBAIR_TEST_DATA names it."""
    folder = os.environ.get("MAMBAIR_TEST_DATA")
    if not folder:
        pytest.skip("MAMBAIR_TEST_DATA names no folder with the development images")
    path = Path(folder)
    assert path.is_dir(), f"MAMBAIR_TEST_DATA={folder} is not a folder"
    return path


@pytest.fixture(autouse=True)
def no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill what a test started and did not wait for: a test that fails or is interrupted leaves no training behind."""
    started: list[subprocess.Popen] = []
    begin = subprocess.Popen.__init__

    def noted(process: subprocess.Popen, *arguments: Any, **options: Any) -> None:
        begin(process, *arguments, **options)
        started.append(process)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    yield
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def load_script(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a file of ``scripts/`` by its name without ``.py``."""

    def load(name: str) -> ModuleType:
        monkeypatch.setattr(sys, "path", list(sys.path))  # scripts replace the first entry
        spec = importlib.util.spec_from_file_location(name, repository / "scripts" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of torch with random weights for VGG19, which the perceptual loss finds there."""
    import torch

    from mambair.losses.perceptual_loss import VGG19_FILE, VGGFeatures

    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(VGGFeatures(("conv5_4",)).state_dict(), folder / "hub" / "checkpoints" / VGG19_FILE)
    return folder


@pytest.fixture
def with_vgg19(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's cache be ``torch_home``."""
    monkeypatch.setenv("TORCH_HOME", str(torch_home))


@pytest.fixture
def like_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the branches of the path gate, of atomic files and of locks that Windows takes."""
    fcntl = pytest.importorskip("fcntl")
    from mambair.folders import file_locks
    from mambair.system import atomic_file, file_lock, path_gate

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert count == 1 and os.lseek(descriptor, 0, os.SEEK_CUR) == file_lock._BYTE
        try:
            fcntl.flock(descriptor, mode)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    msvcrt = ModuleType("msvcrt")
    msvcrt.__dict__.update(LK_NBLCK=fcntl.LOCK_EX | fcntl.LOCK_NB, LK_UNLCK=fcntl.LOCK_UN, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    monkeypatch.setattr(file_lock, "fcntl", None)
    for module in (path_gate, atomic_file, file_locks):
        monkeypatch.setattr(module, "IS_WINDOWS", True)
    monkeypatch.setattr(path_gate, "_HAS_DESCRIPTORS", False)
    monkeypatch.setattr(path_gate, "_FOLLOWS_LINKS", True)
    monkeypatch.setattr(path_gate, "_SAFELY", path_gate._SAFELY & ~os.O_NOFOLLOW)
    monkeypatch.delattr(os, "fchmod")


@pytest.fixture(params=["this system", "Windows"])
def any_system(request: pytest.FixtureRequest) -> str:
    """The test runs with the branches of this system, and with those of Windows (`like_windows`)."""
    if request.param == "Windows":
        request.getfixturevalue("like_windows")
    return request.param
