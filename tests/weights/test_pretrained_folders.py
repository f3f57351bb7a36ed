"""`save_pretrained`, `from_pretrained`, `push_to_hub`: a network as a folder and as a repository of the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import mambair
from mambair.archs import MambaIR
from mambair.options.errors import FaultList
from mambair.options.paths import resolve_weights
from mambair.registry import basicsr_installed
from mambair.weights import from_pretrained, push_to_hub, read, save_pretrained
from mambair.weights.checkpoint import CheckpointError
from mambair.weights.fetch import FetchError, locate

SMALL = {"embed_dim": 12, "depths": [1], "d_state": 2}
NAMES = ["README.md", "config.json", "model.safetensors"]
REPORT = """# mine

- network: small

## Curves

![losses](curves.png)
![sample](sample_1.png)
![elsewhere](../secret.png)
"""


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_there_and_back(tmp_path: Path) -> None:
    net = mambair.create("MambaIR-light-x2", img_range=255.0, **SMALL)  # which no weights tell
    path = save_pretrained(net, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "model.safetensors"
    assert sorted(each.name for each in path.parent.iterdir()) == NAMES
    for back in (from_pretrained(path.parent), mambair.load(path.parent), mambair.load(path), from_pretrained(path)):
        assert same(net, back) and back.img_range == 255.0 and not back.training
    config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    assert (config["arch"], config["task"], config["kwargs"]["img_range"]) == ("MambaIR", "sr", 255.0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MambaIRv2-light-x3", {"embed_dim": 16, "depths": [1], "num_heads": [1], "d_state": 2}),
        ("MambaIRUNet-real-dn", {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}),
        ("vmamba_tiny_s1l8", {"depths": (1, 1, 1, 1), "dims": 8}),
        ("vim_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 16}),
    ],
)
def test_every_kind_of_network(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    net = mambair.create(name, **arguments)
    save_pretrained(net, tmp_path)
    assert same(net, from_pretrained(tmp_path))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("pipeline_tag: image-to-image" in card) == hasattr(net, "upscale")


def test_a_network_that_was_not_built_by_name(tmp_path: Path) -> None:
    net = MambaIR(upscale=2, upsampler="pixelshuffledirect", **SMALL)
    save_pretrained(net, tmp_path)
    assert same(net, from_pretrained(tmp_path))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), CheckpointError, "^Linear: these weights belong to none of"),
        (lambda: mambair.archs.build("basicsr/SRVGGNetCompact"), CheckpointError, "is a class of BasicSR"),  # type: ignore
    ],
)
def test_what_is_not_saved(make: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    if "BasicSR" in message and not basicsr_installed():
        pytest.skip("basicsr is not installed")
    with pytest.raises(error, match=message):
        save_pretrained(make(), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_card(tmp_path: Path) -> None:
    training = {"option_file": "mine.yml", "data": "418 images", "iterations": 30, "hours": 1.5, "processor": "X"}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text(REPORT, encoding="utf-8")
    for name in ("report/curves.png", "report/sample_1.png", "secret.png"):
        (tmp_path / name).write_bytes(name.encode())
    net = mambair.create("MambaIR-light-x2", **SMALL)
    metadata = {"license": "Apache-2.0", "mambair.training": json.dumps(training)}
    save_pretrained(net, tmp_path / "a", metadata=metadata, report=tmp_path / "report" / "report.md")
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: mambair\nlicense: apache-2.0\npipeline_tag: image-to-image\n")
    count = sum(parameter.numel() for parameter in net.parameters())
    for line in (
        "# MambaIR: 2x super-resolution",
        "- Task: 2x super-resolution; licence Apache-2.0",
        "- Trained by `mambair/train.py` with `mine.yml` on 418 images: 30 iterations, 1.5 hours on X",
        f'net = mambair.load("{tmp_path / "a"}")',
        "## Training: mine",
        "### Curves",
        "![losses](curves.png)",
    ):
        assert line in card.splitlines()
    assert f" {count:,} parameters" in card
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == sorted([*NAMES, "curves.png", "sample_1.png"])
    again = read(tmp_path / "a" / "model.safetensors").metadata
    assert again["license"] == "Apache-2.0" and json.loads(again["mambair.training"]) == training
    config = json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))
    assert config["training"] == training and config["license"] == "Apache-2.0"


def test_nothing_is_written_where_the_report_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"report\.md"):
        save_pretrained(mambair.create("MambaIR-light-x2", **SMALL), tmp_path / "a", report=tmp_path / "report.md")
    assert not (tmp_path / "a").exists()


def test_a_folder_may_stand_where_a_file_may(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder holds no model\.safetensors; name a file"):
        locate(tmp_path)
    path = save_pretrained(mambair.create("MambaIR-light-x2", **SMALL), tmp_path)
    assert locate(tmp_path) == path
    assert resolve_weights(str(tmp_path), ("path",), FaultList({}, "f"), check=True) == str(path)


def test_a_repository_of_the_hub(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = from_pretrained("owner/repository")
    assert server.asked == ["/owner/repository/resolve/main/model.safetensors"]
    assert same(net, mambair.load("hub:owner/repository")) and len(server.asked) == 1
    save_pretrained(mambair.create("MambaIR-light-x2", **SMALL), "owner/repository")
    assert not same(net, from_pretrained("owner/repository")), "a folder comes first"
    monkeypatch.setenv("MAMBAIR_OFFLINE", "1")
    with pytest.raises(FetchError, match="hub:owner/other is not in the cache"):
        from_pretrained("owner/other")


class Hub:
    """Stands in for ``huggingface_hub.HfApi``, with its signatures, and remembers what it is asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = pytest.importorskip("huggingface_hub")
        self.files: dict[str, bytes] = {}
        self.api = mock.create_autospec(hub.HfApi)
        self.api.return_value.upload_folder.side_effect = self.upload
        monkeypatch.setattr(hub, "HfApi", self.api)

    def upload(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


def test_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MAMBAIR_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    hub = Hub(monkeypatch)
    net = mambair.create("MambaIR-light-x2", **SMALL)
    assert push_to_hub(net, "me/small", private=True, token="t", message="First") == "hub:me/small"
    hub.api.assert_called_once_with(endpoint="https://mirror.example", token="t")
    names = [name for name, _, _ in hub.api.return_value.mock_calls]
    assert names == ["create_repo", "upload_folder"]
    hub.api.return_value.create_repo.assert_called_once_with("me/small", private=True, exist_ok=True)
    assert hub.api.return_value.upload_folder.call_args.kwargs["repo_id"] == "me/small"
    assert hub.api.return_value.upload_folder.call_args.kwargs["commit_message"] == "First"
    assert sorted(hub.files) == NAMES
    assert b"mambair restore -i photos -o restored --weights hub:me/small\n" in hub.files["README.md"]
    (tmp_path / "model.safetensors").write_bytes(hub.files["model.safetensors"])
    assert same(net, from_pretrained(tmp_path))


def test_what_is_not_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    net = mambair.create("MambaIR-light-x2", **SMALL)
    monkeypatch.delenv("MAMBAIR_OFFLINE", raising=False)
    with pytest.raises(CheckpointError, match=r"^'small': expected OWNER/REPOSITORY$"):
        push_to_hub(net, "small")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r'^uploading needs huggingface_hub: pip install "mambair\[hub\]"$'):
        push_to_hub(net, "me/small")
    monkeypatch.setenv("MAMBAIR_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"^me/small is not uploaded: MAMBAIR_OFFLINE is set$"):
        push_to_hub(net, "me/small")


def test_huggingface_hub_is_imported_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    save_pretrained(mambair.create("MambaIR-light-x2", **SMALL), tmp_path)
    assert from_pretrained(tmp_path).upscale == 2
    with pytest.raises(CheckpointError, match="uploading needs huggingface_hub"):
        push_to_hub(from_pretrained(tmp_path), "me/small")
