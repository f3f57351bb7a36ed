"""What a package index and an installation get: the wheel, the source archive, and links of the README."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from mambair.commands.recipes import recipes

BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of the tracked files; building writes into the folder of the sources."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True).stdout
    copy = tmp_path_factory.mktemp("packaging") / "sources"
    for name in listed.decode().rstrip("\0").split("\0"):
        if (repository / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, copy / name)
    return copy


def build(sources: Path, kind: str, folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(folder)]
    done = subprocess.run(command, cwd=sources, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.mark.slow
def test_the_source_archive_holds_every_tracked_file(sources: Path, tmp_path: Path) -> None:
    tracked = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()}
    with tarfile.open(build(sources, "sdist", tmp_path)) as archive:
        held = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    missing = {name for name in tracked - held if not name.startswith((".ci/", ".git", "build/", "mambair.egg-info/"))}
    assert missing == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "links", "pages"),
    [
        ("", ["](docs/images/", "](docs/restoring.md)"], []),
        (
            "https://example.org/owner/name/",
            [
                "](https://example.org/owner/name/raw/main/docs/images/",
                "(https://example.org/owner/name/blob/main/docs/",
            ],
            ["Repository, https://example.org/owner/name", "Issues, https://example.org/owner/name/issues"],
        ),
    ],
    ids=["no address", "an address"],
)
def test_the_wheel(sources: Path, tmp_path: Path, address: str, links: list[str], pages: list[str]) -> None:
    with zipfile.ZipFile(build(sources, "wheel", tmp_path, MAMBAIR_REPOSITORY=address)) as wheel:
        names = wheel.namelist()
        metadata = message_from_bytes(wheel.read(next(name for name in names if name.endswith("/METADATA"))))
    assert {Path(name).stem for name in names if name.startswith("mambair/_recipes/") and name.endswith(".yml")} == set(
        recipes()
    )
    assert {"mambair/_kernels/README.md", "mambair/weights/mambair_small_x4.safetensors"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "options"))]
    readme = metadata.get_payload()
    assert all(link in readme for link in links)
    assert ("](docs/" in readme) == (not address)
    assert set(pages) <= set(metadata.get_all("Project-URL", []))
