"""Links in folders that somebody else made, where a training, an evaluation or a download writes."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mambair.data.pairing import DatasetError
from mambair.data_tools.archives import unpack
from mambair.data_tools.catalogue import Part, RemoteDataset, RemoteFile
from mambair.data_tools.dataset_download import DatasetDownloads
from mambair.evaluation.candidates import FunctionCandidate
from mambair.evaluation.distributed import measure_shared
from mambair.evaluation.evaluate import Storage, measure
from mambair.evaluation.results import SetResult
from mambair.system.path_gate import UnsafePathError
from mambair.training.experiment import prepare_folders
from mambair.training.report import write_report

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links of POSIX")

FILES = {"report.md": "mine", ".notes.tmp.doc": "notes", f".a.{'0' * 32}.tmp.pth": "half"}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def opt(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "experiments" / "t"
    root.mkdir(parents=True)
    path = {name: str(root / name) for name in ("models", "training_states", "visualization")}
    return {
        "name": "t",
        "network_g": {"type": "MambaIR"},
        "train": {"total_iter": 1},
        "val": {},
        "path": {**path, "experiments_root": str(root)},
    }


@pytest.mark.parametrize(
    "planted", ["models", "training_states", "visualization", "report", "visualization/grids", "visualization/Set5"]
)
def test_a_training_goes_on_in_no_linked_folder(planted: str, opt: dict[str, Any], victim: Path) -> None:
    link = Path(opt["path"]["experiments_root"], planted)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)
    with pytest.raises(UnsafePathError, match=f"^{re.escape(str(link))} is a link, where a folder is expected; remove"):
        prepare_folders(opt, None, keep_existing=True)
    assert contents(victim) == FILES


def test_the_folder_of_an_experiment_may_be_a_link_and_keeps_the_files_of_others(
    opt: dict[str, Any], victim: Path
) -> None:
    root = Path(opt["path"]["experiments_root"])
    root.rmdir()
    root.symlink_to(victim)
    prepare_folders(opt, None, keep_existing=True)
    names = {path.name for path in victim.iterdir()}
    assert names == {"report.md", ".notes.tmp.doc", "models", "training_states", "visualization"}


def test_a_report_is_written_into_no_linked_folder(opt: dict[str, Any], victim: Path) -> None:
    Path(opt["path"]["experiments_root"], "report").symlink_to(victim)
    model: Any = SimpleNamespace()
    with pytest.raises(UnsafePathError, match=r"^a link in the output folder leads out of it: .*report; remove it$"):
        write_report(opt, model, [])
    assert contents(victim) == FILES


# -- data sets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planted", "prefix"), [("Set", "HR"), ("Set/HR", "HR"), (".downloads", "HR"), ("Set", None), ("Set/HR", None)]
)
def test_nothing_is_fetched_through_a_linked_folder(
    planted: str, prefix: str | None, tmp_path: Path, victim: Path
) -> None:
    root = tmp_path / "root"
    (root / planted).parent.mkdir(parents=True)
    (root / planted).symlink_to(victim)
    file = RemoteFile("http://127.0.0.1:1/report.md", "report.md.zip", size=4, sha256="0" * 64, stated_at="a page")
    dataset = RemoteDataset("Set", "an image", "a page", (Part(file, prefix, "Set/HR", 1),))
    (failure,) = DatasetDownloads(root, attempts=1).obtain(dataset).failed
    assert failure.endswith(f": is a link that leads out of {root}; nothing is written there")
    assert contents(victim) == FILES


def test_nothing_is_unpacked_through_a_linked_folder(tmp_path: Path, victim: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "X").symlink_to(victim)
    with zipfile.ZipFile(tmp_path / "archive", "w") as made:
        made.writestr("Set/a.png", b"picture")
    with pytest.raises(DatasetError, match="is a link that leads out of"):
        unpack(tmp_path / "archive", {"Set": root / "X"}, within=root)
    assert contents(victim) == FILES


# -- evaluation --------------------------------------------------------------------------------------------------------


class OneImage(list[Any]):
    opt: dict[str, Any] = {}  # noqa: RUF012


@pytest.mark.parametrize("planted", ["pictures", ".rank0"])
def test_results_are_written_into_no_linked_folder(planted: str, tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / planted).symlink_to(victim)
    images = OneImage([{"lq": torch.zeros(3, 4, 4), "lq_path": "a.png"}])
    result, candidates = SetResult("Set5", images, {}, 1), [FunctionCandidate("network", lambda x: x)]
    if planted == "pictures":
        done = measure(result, candidates, storage=Storage(out, lambda candidate, image: "pictures/report.md.png"))
    else:
        alone: Any = SimpleNamespace(distributed=True, rank=0, world_size=1, gather_json=lambda sent: [sent])
        done = measure_shared(result, candidates, alone, storage=Storage(out, lambda candidate, image: "a.png"))
    (failure,) = done.failed
    assert failure.startswith("Set5, a, network: a link in the output folder leads out of it: ")
    assert failure.endswith(f"{planted}; remove it")
    assert contents(victim) == FILES
