"""Fixtures shared by all tests: where the exact reference outputs and the larger development data are."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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
